//! The arguments of a request: a raw query string or form body, checked and decoded.
//!
//! The rules are those of `application/x-www-form-urlencoded` (WHATWG URL Standard, section 5), with two differences:
//! what that standard repairs silently is refused here, because a request that changes a group must not be guessed at;
//! and an argument may be given only once.

use std::borrow::Cow;
use std::fmt;
use std::str::Utf8Chunk;

/// Most bytes of query string and form body together.
///
/// nginx's default `client_body_buffer_size` is 16k on 64-bit systems and its longest default request line 8k; 64k leaves
/// room for raised limits, while one request still cannot hold much memory.
pub const MAX_RAW_LENGTH: usize = 65_536;

/// Most arguments of one request.
///
/// The largest contract knows fewer than 20; 64 leaves room, and bounds the search for duplicates, which is linear.
pub const MAX_ARGUMENTS: usize = 64;

/// Most characters of a foreign text that a message shows; longer text is cut.
///
/// Long enough for any IPv6 address with port and most host names, short enough for a log line.
const QUOTED_LENGTH: usize = 64;

/// The decoded arguments of one request, in the order in which they were given, each name once.
#[derive(Clone, Debug, Default)]
pub struct Query {
    /// Decoded names and values, at most [`MAX_ARGUMENTS`].
    arguments: Vec<(String, String)>,
    /// Raw bytes taken so far, at most [`MAX_RAW_LENGTH`].
    raw_length: usize,
}

/// Why the arguments of a request were refused; texts are stored as [`quoted`] returns them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum QueryError {
    /// Query string and body are longer than [`MAX_RAW_LENGTH`].
    TooLong,
    /// There are more than [`MAX_ARGUMENTS`] arguments.
    TooManyArguments,
    /// A `%` is not followed by two hexadecimal digits; holds the raw piece between two `&`.
    PercentEncoding(String),
    /// A decoded name or value holds a byte below 0x20, or 0x7f; holds the raw piece between two `&`.
    ControlCharacter(String),
    /// A decoded name or value is not UTF-8; holds the raw piece between two `&`.
    NotUtf8(String),
    /// An argument was given twice; holds its decoded name.
    Duplicate(String),
}

// === impl Query ===

impl Query {
    /// Decodes a raw query string, without its `?`.
    ///
    /// Pieces are separated by `&`, empty ones are skipped; the first `=` of a piece ends the name, and a piece without
    /// one is an argument with an empty value, hence a flag that is present.
    pub fn parse(raw: &[u8]) -> Result<Query, QueryError> {
        let mut query = Query::default();
        query.extend(raw)?;
        Ok(query)
    }

    /// Adds the arguments of a form body, by the rules of [`Query::parse`].
    ///
    /// The limits hold for query string and body together, and a name in both is a duplicate. On an error nothing is
    /// added.
    pub fn extend(&mut self, raw: &[u8]) -> Result<(), QueryError> {
        let raw_length = self.raw_length.saturating_add(raw.len());
        if raw_length > MAX_RAW_LENGTH {
            return Err(QueryError::TooLong);
        }
        let mut added: Vec<(String, String)> = Vec::new();
        for piece in raw.split(|&byte| byte == b'&') {
            if piece.is_empty() {
                continue;
            }
            if self.arguments.len().saturating_add(added.len()) >= MAX_ARGUMENTS {
                return Err(QueryError::TooManyArguments);
            }
            let (name, value) = decode_piece(piece)?;
            if self.has(&name) || added.iter().any(|(other, _)| *other == name) {
                return Err(QueryError::Duplicate(quoted(name.as_bytes())));
            }
            added.push((name, value));
        }
        self.arguments.append(&mut added);
        self.raw_length = raw_length;
        Ok(())
    }

    /// The value of an argument: empty if it is a flag, `None` if it was not given.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.iter().find_map(|(known, value)| (known == name).then_some(value))
    }

    /// Whether an argument was given, with or without a value.
    pub fn has(&self, name: &str) -> bool {
        self.get(name).is_some()
    }

    /// All arguments as name and value, those of the query string before those of the body.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.arguments.iter().map(|(name, value)| (name.as_str(), value.as_str()))
    }

    /// The name of the first argument that is not among `known`, for the message that refuses it.
    pub fn first_unknown(&self, known: &[&str]) -> Option<&str> {
        self.iter().find_map(|(name, _)| (!known.contains(&name)).then_some(name))
    }
}

// === impl QueryError ===

impl QueryError {
    /// Whether the request is too large, and not malformed: the answer is 413 or 414 then, and not 400.
    pub fn is_too_large(&self) -> bool {
        matches!(self, QueryError::TooLong | QueryError::TooManyArguments)
    }
}

impl fmt::Display for QueryError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            QueryError::TooLong => write!(f, "arguments longer than {MAX_RAW_LENGTH} bytes"),
            QueryError::TooManyArguments => write!(f, "more than {MAX_ARGUMENTS} arguments"),
            QueryError::PercentEncoding(piece) => write!(f, "invalid percent-encoding in {piece}"),
            QueryError::ControlCharacter(piece) => write!(f, "control character in {piece}"),
            QueryError::NotUtf8(piece) => write!(f, "invalid utf-8 in {piece}"),
            QueryError::Duplicate(name) => write!(f, "duplicate argument {name}"),
        }
    }
}

impl std::error::Error for QueryError {}

/// Splits one piece between two `&` at its first `=` and decodes both sides.
fn decode_piece(piece: &[u8]) -> Result<(String, String), QueryError> {
    let mut sides = piece.splitn(2, |&byte| byte == b'=');
    let name = sides.next().unwrap_or_default();
    let value = sides.next().unwrap_or_default();
    let side = |raw| decode(raw).map_err(|error| error(quoted(piece)));
    Ok((side(name)?, side(value)?))
}

/// Decodes `%HH` and `+`; the result is never longer than `raw`. The error is a variant that awaits the text to show.
fn decode(raw: &[u8]) -> Result<String, fn(String) -> QueryError> {
    // Most need no decoding.
    if !raw.iter().any(|byte| matches!(byte, b'+' | b'%') || byte.is_ascii_control()) {
        let text = str::from_utf8(raw).map(str::to_owned);
        return text.map_err(|_| QueryError::NotUtf8 as fn(String) -> QueryError);
    }
    let mut decoded = Vec::with_capacity(raw.len());
    let mut bytes = raw.iter().copied();
    while let Some(byte) = bytes.next() {
        let byte = match byte {
            b'+' => b' ',
            b'%' => match (bytes.next().and_then(hex), bytes.next().and_then(hex)) {
                (Some(high), Some(low)) => (high << 4) | low,
                _ => return Err(QueryError::PercentEncoding),
            },
            other => other,
        };
        if byte.is_ascii_control() {
            return Err(QueryError::ControlCharacter);
        }
        decoded.push(byte);
    }
    String::from_utf8(decoded).map_err(|_| QueryError::NotUtf8 as fn(String) -> QueryError)
}

/// The value of a hexadecimal digit of either case, 0..=15.
fn hex(digit: u8) -> Option<u8> {
    char::from(digit).to_digit(16).and_then(|value| u8::try_from(value).ok())
}

/// Foreign text in double quotes, safe for a message, a log line and a terminal.
///
/// Control characters (also those above ASCII, and the ones that turn the writing direction), double quotes, backslashes
/// and bytes that are not UTF-8 are written `\xHH`; after 64 written characters the text is cut with `...`.
pub fn quoted(text: &[u8]) -> String {
    let mut shown = String::with_capacity(QUOTED_LENGTH);
    shown.push('"');
    let mut room = QUOTED_LENGTH;
    for piece in text.utf8_chunks().flat_map(pieces) {
        let Some(left) = room.checked_sub(piece.chars().count()) else {
            shown.push_str("...");
            break;
        };
        room = left;
        shown.push_str(&piece);
    }
    shown.push('"');
    shown
}

/// The parts of a chunk that are shown whole or not at all: one for each character, one for what is not UTF-8.
fn pieces(chunk: Utf8Chunk<'_>) -> impl Iterator<Item = Cow<'_, str>> {
    let escape = |bytes: &[u8]| bytes.iter().map(|byte| format!("\\x{byte:02x}")).collect();
    let show = move |character| match str::chars(character).all(is_plain) {
        true => Cow::Borrowed(character),
        false => Cow::Owned(escape(character.as_bytes())),
    };
    let invalid = Cow::Owned(escape(chunk.invalid()));
    let characters = chunk.valid().split_inclusive(|_| true);
    characters.map(show).chain([invalid])
}

/// Whether a character may stand in a message as it is.
fn is_plain(character: char) -> bool {
    // The directional marks and line separators let a name rewrite the line around it on a terminal or a page.
    let is_layout = matches!(character, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{2069}' | '\u{feff}');
    !character.is_control() && !is_layout && character != '"' && character != '\\'
}

/// Random input for tests.
#[cfg(test)]
pub(crate) mod random {
    /// A xorshift generator (Marsaglia 2003): the same seed gives the same cases on every machine.
    pub(crate) struct Random(u64);

    impl Random {
        /// A generator for a seed that is not 0.
        pub(crate) fn new(seed: u64) -> Random {
            Random(seed)
        }

        /// 64 random bits.
        pub(crate) fn next(&mut self) -> u64 {
            self.0 ^= self.0 << 13;
            self.0 ^= self.0 >> 7;
            self.0 ^= self.0 << 17;
            self.0
        }

        /// A number below `limit`, which is not 0.
        pub(crate) fn below(&mut self, limit: usize) -> usize {
            ((self.next() >> 33) as usize) % limit
        }

        /// One of `items`.
        pub(crate) fn pick<T: Copy + Default>(&mut self, items: &[T]) -> T {
            items.get(self.below(items.len())).copied().unwrap_or_default()
        }

        /// Damages `text` in one to three places, mostly with bytes of `alphabet`.
        pub(crate) fn mutate(&mut self, text: &mut Vec<u8>, alphabet: &[u8]) {
            for _ in 0..=self.below(3) {
                let place = self.below(text.len() + 1);
                let byte = match self.below(8) {
                    0 => self.next() as u8,
                    _ => self.pick(alphabet),
                };
                match (self.below(6), text.get_mut(place)) {
                    (0, Some(_)) => drop(text.remove(place)),
                    (1, Some(target)) => *target = byte,
                    (2, Some(_)) => text.truncate(place),
                    (3, Some(_)) => text.extend_from_within(place..),
                    _ => text.insert(place, byte),
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::random::Random;
    use super::*;

    /// Names and values.
    type Pairs = &'static [(&'static str, &'static str)];

    /// The arguments of a raw query string, or the message of its error.
    fn outcome(raw: &[u8]) -> Result<Vec<(String, String)>, String> {
        let own = |(name, value): (&str, &str)| (name.to_owned(), value.to_owned());
        match Query::parse(raw) {
            Ok(query) => Ok(query.iter().map(own).collect()),
            Err(error) => Err(error.to_string()),
        }
    }

    #[test]
    fn accepted() {
        let cases: [(&[u8], Pairs); 15] = [
            (b"", &[]),
            (b"&&", &[]),
            (b"a=1", &[("a", "1")]),
            (b"&a=1&&b=2&", &[("a", "1"), ("b", "2")]),
            (b"b=&a", &[("b", ""), ("a", "")]),
            (b"a=b=c", &[("a", "b=c")]),
            (b"a==", &[("a", "=")]),
            (b"=x", &[("", "x")]),
            (b"=", &[("", "")]),
            (b"a+b=c+d", &[("a b", "c d")]),
            (b"a=%2B%26%3d%25", &[("a", "+&=%")]),
            (b"%61=%C3%A9", &[("a", "\u{e9}")]),
            (b"a=\xc3\xa9", &[("a", "\u{e9}")]),
            (b"server=%5B::1%5d:80", &[("server", "[::1]:80")]),
            (b"a;b=1?/#", &[("a;b", "1?/#")]),
        ];
        for (raw, expected) in cases {
            let query = Query::parse(raw).unwrap_or_default();
            assert!(query.iter().eq(expected.iter().copied()), "{raw:?}");
        }
    }

    #[test]
    fn refused() {
        for (raw, name) in [
            ("peer=0&peer=1", "peer"),
            ("peer&x=1&p%65er=1", "peer"),
            ("=1&=2", ""),
            ("a%22%5C&a%22%5c", r"a\x22\x5c"),
        ] {
            let expected = format!("duplicate argument \"{name}\"");
            assert_eq!(outcome(raw.as_bytes()), Err(expected));
        }
        for (reason, pieces) in [
            ("invalid percent-encoding", "a=%|a=%4|a=%zz|a=%+1|%g0=1|%%30|a%"),
            ("control character", "a=%00|a=%0a|a%1f|a=%7F|%00"),
            ("invalid utf-8", "a=%ff|%c3=1|a=%c3%28|a=%ed%a0%80"),
        ] {
            for piece in pieces.split('|') {
                let expected = format!("{reason} in \"{piece}\"");
                assert_eq!(outcome(format!("x&{piece}&1").as_bytes()), Err(expected));
            }
        }
        for (raw, expected) in [
            (&b"a=1\n"[..], r#"control character in "a=1\x0a""#),
            (b"\xc3=1", r#"invalid utf-8 in "\xc3=1""#),
        ] {
            assert_eq!(outcome(raw), Err(expected.to_owned()));
        }
    }

    #[test]
    fn limits() {
        let many = |count: usize| (0..count).map(|number| format!("a{number}&")).collect::<String>();
        assert_eq!(outcome(many(64).as_bytes()).map(|list| list.len()), Ok(64));
        let error = outcome(many(65).as_bytes()).err();
        assert_eq!(error.as_deref(), Some("more than 64 arguments"));
        let long = [b'a'; MAX_RAW_LENGTH + 1];
        let (_, fits) = long.split_at(1);
        assert_eq!(Query::parse(&long).map(drop), Err(QueryError::TooLong));
        let mut query = Query::parse(fits).unwrap_or_default();
        assert_eq!(query.iter().count(), 1);
        assert_eq!(query.extend(b"b"), Err(QueryError::TooLong));
        let message = QueryError::TooLong.to_string();
        assert_eq!(message, "arguments longer than 65536 bytes");
        assert!(QueryError::TooManyArguments.is_too_large());
        assert!(!QueryError::Duplicate(String::new()).is_too_large());
    }

    #[test]
    fn body_after_query_string() {
        let mut query = Query::parse(b"upstream=u&add=").unwrap_or_default();
        let duplicate = QueryError::Duplicate("\"upstream\"".to_owned());
        assert_eq!(query.extend(b"server=s&upstream=v"), Err(duplicate));
        assert!(!query.has("server"), "a refused body left an argument behind");
        assert_eq!(query.extend(b"server=s"), Ok(()));
        assert!(query.iter().eq([("upstream", "u"), ("add", ""), ("server", "s")]));
        assert_eq!((query.get("add"), query.get("remove")), (Some(""), None));
        assert_eq!(query.first_unknown(&["upstream", "server"]), Some("add"));
        assert_eq!(query.first_unknown(&["add", "upstream", "server"]), None);
    }

    #[test]
    fn quoted_text_is_safe_and_short() {
        let whole = format!("\"{}\"", "a".repeat(64));
        let cut = format!("\"{}...\"", "a".repeat(64));
        let cases: [(&[u8], &str); 6] = [
            (b"", "\"\""),
            (b"a\0\x1b\xff\"\\", r#""a\x00\x1b\xff\x22\x5c""#),
            ("\u{e9}\u{85}".as_bytes(), "\"\u{e9}\\xc2\\x85\""),
            ("\u{202e}".as_bytes(), r#""\xe2\x80\xae""#),
            (&[b'a'; 64], &whole),
            (&[b'a'; 65], &cut),
        ];
        for (text, expected) in cases {
            assert_eq!(quoted(text), expected);
        }
        assert_eq!(quoted(&[0xff; 17]), format!("\"{}...\"", "\\xff".repeat(16)));
    }

    /// A second decoder, which works on the pieces between percent signs.
    fn model(raw: &[u8]) -> Option<Vec<(String, String)>> {
        let side = |side: &[u8]| {
            let mut out = Vec::new();
            for (number, part) in side.split(|&byte| byte == b'%').enumerate() {
                let mut rest = part;
                if number > 0 {
                    let (digits, after) = part.split_at_checked(2)?;
                    let digits = std::str::from_utf8(digits).ok()?.replace('+', "x");
                    out.push(u8::from_str_radix(&digits, 16).ok()?);
                    rest = after;
                }
                out.extend(rest.iter().map(|&byte| if byte == b'+' { b' ' } else { byte }));
            }
            let text = String::from_utf8(out).ok()?;
            (!text.contains(|c: char| c < ' ' || c == '\u{7f}')).then_some(text)
        };
        let mut list: Vec<(String, String)> = Vec::new();
        for piece in raw.split(|&byte| byte == b'&').filter(|piece| !piece.is_empty()) {
            let end = piece.iter().position(|&byte| byte == b'=').unwrap_or(piece.len());
            let (name, value) = piece.split_at_checked(end)?;
            let (name, value) = (side(name)?, side(value.get(1..).unwrap_or_default())?);
            if list.iter().any(|(known, _)| *known == name) {
                return None;
            }
            list.push((name, value));
        }
        Some(list)
    }

    /// Appends the encoding of `text`, with escapes where they are needed and where they are not.
    fn encode(random: &mut Random, text: &str, raw: &mut Vec<u8>) {
        for byte in text.bytes() {
            match byte {
                b' ' if random.below(2) == 0 => raw.push(b'+'),
                b'a'..=b'z' | b'0'..=b'9' | 0x80.. if random.below(4) > 0 => raw.push(byte),
                _ => {
                    let digits = random.pick(&["0123456789abcdef", "0123456789ABCDEF"]).as_bytes();
                    let digit = |value: u8| digits.get(usize::from(value)).copied().unwrap_or_default();
                    raw.extend([b'%', digit(byte >> 4), digit(byte & 15)]);
                }
            }
        }
    }

    /// A million query strings: encoded from known arguments, damaged in a known way, or damaged at random.
    #[test]
    fn random_arguments() {
        let mut random = Random::new(0x0071_7565_7279);
        let names = ["a", "up", "b c", "\u{e9}", "", "peer", "a=", "x%"];
        let values: Vec<&str> = "|1|a&b|[::1]:80|\u{20ac}|+ %|true|=|10.0.0.1:80".split('|').collect();
        let percents = ["q=%", "q=%4", "q=%4x", "q%x4", "%%30"];
        let controls = ["q=\0", "q%0a", "q\t=", "q=%7f", "%1F"];
        let (mut raw, mut arguments) = (Vec::new(), Vec::new());
        for _ in 0..1_000_000 {
            raw.clear();
            arguments.clear();
            let first = random.below(names.len());
            for name in names.iter().copied().cycle().skip(first).take(random.below(4)) {
                let value = random.pick(&values);
                arguments.push((name, value));
                encode(&mut random, name, &mut raw);
                if !value.is_empty() || name.is_empty() || random.below(2) == 0 {
                    raw.push(b'=');
                    encode(&mut random, value, &mut raw);
                }
                raw.extend_from_slice(random.pick(&["&", "&", "&&"]).as_bytes());
            }
            let kept = raw.len();
            match random.below(6) {
                0 => match Query::parse(&raw) {
                    Ok(query) => assert!(query.iter().eq(arguments.iter().copied()), "{raw:?}"),
                    Err(error) => unreachable!("{error}"),
                },
                // A name again, in the query string or in a body.
                1 => {
                    let Some((name, _)) = arguments.first() else {
                        continue;
                    };
                    encode(&mut random, name, &mut raw);
                    raw.push(b'=');
                    let expected = Err(QueryError::Duplicate(quoted(name.as_bytes())));
                    assert_eq!(Query::parse(&raw).map(drop), expected);
                    let (query, body) = raw.split_at_checked(kept).unwrap_or_default();
                    let both = Query::parse(query).and_then(|mut query| query.extend(body));
                    assert_eq!(both, expected);
                }
                2 => {
                    raw.extend_from_slice(random.pick(&percents).as_bytes());
                    let error = Query::parse(&raw).err();
                    assert!(matches!(error, Some(QueryError::PercentEncoding(_))), "{raw:?}");
                }
                3 => {
                    raw.extend_from_slice(random.pick(&controls).as_bytes());
                    let error = Query::parse(&raw).err();
                    assert!(matches!(error, Some(QueryError::ControlCharacter(_))), "{raw:?}");
                }
                _ => {
                    random.mutate(&mut raw, b"&&&==%%%+02afAF7\xc3\xa9\xff\0\n");
                    let query = Query::parse(&raw).ok();
                    let expected = model(&raw);
                    let found = query.as_ref().map(|query| query.arguments.as_slice());
                    assert_eq!(found, expected.as_deref(), "{raw:?}");
                }
            }
        }
    }
}
