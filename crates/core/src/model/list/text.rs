//! Lists of servers in the words of nginx's configuration: `server ADDRESS [PARAMETERS];`, or
//! `upstream NAME { server ..; }` for several upstreams. `#` begins a comment, quotes are nginx's.

use std::collections::HashMap;

use super::super::params::Params;
use super::super::query::quoted;
use super::{Fault, Flags, List, ListError, ListPlace, Listed, MAX_WORD, take_param};

/// Most words of one statement. A server has eight parameters.
const MAX_WORDS: usize = 32;

/// Reads a list statement by statement, so that a long one can be read in slices.
pub struct TextReader {
    /// The whole text.
    text: Vec<u8>,
    /// How much of it was read, in bytes.
    at: usize,
    /// The line there.
    line: usize,
    /// What was read.
    lists: Vec<List>,
    /// Where each upstream is named.
    named: HashMap<String, ListPlace>,
    /// Whether an `upstream` block is open.
    open: bool,
}

/// A piece of the text.
enum Token {
    /// A word, without its quotes, and its line.
    Word(String, usize),
    /// `;`.
    Semicolon,
    /// `{`.
    Open,
    /// `}`.
    Close,
    /// The end of the text.
    End,
}

/// What ends a statement.
enum End {
    /// `;`.
    Semicolon,
    /// `{`.
    Open,
}

impl TextReader {
    /// A reader of a text.
    pub fn new(text: Vec<u8>) -> Self {
        Self { text, at: 0, line: 1, lists: Vec::new(), named: HashMap::new(), open: false }
    }

    /// What was read: one list without a name, or lists with names. An empty text is none at all.
    pub fn into_lists(self) -> Vec<List> {
        self.lists
    }

    /// Reads one statement. False at the end of the text.
    ///
    /// # Errors
    ///
    /// What is wrong with it.
    pub fn step(&mut self) -> Result<bool, ListError> {
        let token = self.token()?;
        let place = ListPlace::line(self.line);
        let unexpected = |what: &str| Err(place.error(Fault::Unexpected(quoted(what.as_bytes()))));
        match token {
            Token::End if self.open => Err(place.error(Fault::CutShort("\"}\""))),
            Token::End => Ok(false),
            Token::Close if self.open => {
                self.open = false;
                Ok(true)
            }
            Token::Close => unexpected("}"),
            Token::Semicolon => unexpected(";"),
            Token::Open => unexpected("{"),
            Token::Word(word, line) => {
                let mut words = Vec::with_capacity(4);
                words.push((word, line));
                let end = self.statement(&mut words)?;
                self.take(words, &end)?;
                Ok(true)
            }
        }
    }

    /// Reads the rest of a statement.
    fn statement(&mut self, words: &mut Vec<(String, usize)>) -> Result<End, ListError> {
        loop {
            let token = self.token()?;
            let place = ListPlace::line(self.line);
            let last = || quoted(words.last().map_or("", |(word, _)| word).as_bytes());
            match token {
                Token::Word(word, line) if words.len() < MAX_WORDS => words.push((word, line)),
                Token::Word(word, line) => {
                    return Err(ListPlace::line(line).error(Fault::UnknownParameter(quoted(word.as_bytes()))));
                }
                Token::Semicolon => return Ok(End::Semicolon),
                Token::Open => return Ok(End::Open),
                Token::Close => return Err(place.error(Fault::Missing("\";\"", last()))),
                Token::End => return Err(place.error(Fault::CutShort("\";\""))),
            }
        }
    }

    /// Takes a statement.
    fn take(&mut self, words: Vec<(String, usize)>, end: &End) -> Result<(), ListError> {
        let mut words = words.into_iter();
        let Some((directive, line)) = words.next() else { return Ok(()) };
        let place = ListPlace::line(line);
        let shown = || quoted(directive.as_bytes());
        match (directive.as_str(), end) {
            ("server", End::Semicolon) => self.server(words, place),
            ("upstream", End::Open) => self.block(words, place),
            ("server", End::Open) => {
                Err(ListPlace::line(self.line).error(Fault::Unexpected("\"{\"".to_owned())))
            }
            ("upstream", End::Semicolon) => {
                Err(ListPlace::line(self.line).error(Fault::Missing("\"{\"", shown())))
            }
            _ => Err(place.error(Fault::UnknownDirective(shown()))),
        }
    }

    /// Takes the beginning of a block.
    fn block(
        &mut self,
        mut words: impl Iterator<Item = (String, usize)>,
        place: ListPlace,
    ) -> Result<(), ListError> {
        // A list without a name has no blocks beside it.
        if self.open || self.lists.last().is_some_and(|list| list.upstream.is_none()) {
            return Err(place.error(Fault::Unexpected("\"upstream\"".to_owned())));
        }
        let (Some((name, _)), None) = (words.next(), words.next()) else {
            return Err(place.error(Fault::NoName));
        };
        self.named.try_reserve(1).map_err(|_| place.full())?;
        self.lists.try_reserve(1).map_err(|_| place.full())?;
        if let Some(other) = self.named.insert(name.clone(), place) {
            return Err(place.error(Fault::UpstreamTwice(quoted(name.as_bytes()), other)));
        }
        self.lists.push(List { place, upstream: Some(name), servers: Vec::new() });
        self.open = true;
        Ok(())
    }

    /// Takes a server.
    fn server(
        &mut self,
        mut words: impl Iterator<Item = (String, usize)>,
        place: ListPlace,
    ) -> Result<(), ListError> {
        if !self.open && self.lists.last().is_none_or(|list| list.upstream.is_some()) {
            if !self.lists.is_empty() {
                return Err(place.error(Fault::Unexpected("\"server\" outside of a block".to_owned())));
            }
            self.lists.push(List { place, upstream: None, servers: Vec::new() });
        }
        let (server, _) = words.next().ok_or_else(|| place.error(Fault::NoServer))?;
        let (mut params, mut flags, mut seen) = (Params::default(), Flags::default(), Vec::new());
        // The word before, unless that is the server itself.
        let (mut before, mut end) = (None, place);
        for (word, line) in words {
            let here = ListPlace::line(line);
            let flag = match word.as_str() {
                "backup" => Some(&mut flags.backup),
                "down" => Some(&mut flags.down),
                "drain" => Some(&mut flags.drain),
                // The next one, since the end of this was forgotten.
                "server" => {
                    let before = before.as_ref().unwrap_or(&server);
                    return Err(end.error(Fault::Missing("\";\"", quoted(before.as_bytes()))));
                }
                _ => None,
            };
            match flag {
                Some(true) => return Err(here.error(Fault::Twice(quoted(word.as_bytes())))),
                Some(flag) => *flag = true,
                None => take_param(&word, &mut params, &mut seen).map_err(|fault| here.error(fault))?,
            }
            (before, end) = (Some(word), here);
        }
        let listed = Listed::new(place, server, params, flags)?;
        if let Some(list) = self.lists.last_mut() {
            list.servers.try_reserve(1).map_err(|_| place.full())?;
            list.servers.push(listed);
        }
        Ok(())
    }

    /// Reads a token.
    fn token(&mut self) -> Result<Token, ListError> {
        self.skip();
        let Some(byte) = self.peek() else { return Ok(Token::End) };
        let single = match byte {
            b';' => Token::Semicolon,
            b'{' => Token::Open,
            b'}' => Token::Close,
            quote @ (b'"' | b'\'') => return self.quoted_word(quote),
            _ => return self.word(),
        };
        self.at += 1;
        Ok(single)
    }

    /// The next byte.
    fn peek(&self) -> Option<u8> {
        self.text.get(self.at).copied()
    }

    /// Skips white space and comments.
    fn skip(&mut self) {
        while let Some(byte) = self.peek() {
            match byte {
                b'\n' => self.line += 1,
                b' ' | b'\t' | b'\r' => {}
                b'#' => {
                    let rest = self.text.get(self.at..).unwrap_or_default();
                    self.at += rest.iter().position(|byte| *byte == b'\n').unwrap_or(rest.len());
                    continue;
                }
                _ => return,
            }
            self.at += 1;
        }
    }

    /// Reads a word without quotes.
    fn word(&mut self) -> Result<Token, ListError> {
        let rest = self.text.get(self.at..).unwrap_or_default();
        let ends = |byte: &u8| matches!(byte, b' ' | b'\t' | b'\r' | b'\n' | b';' | b'{' | b'}');
        // One more than is allowed, to see that it is too long.
        let length = rest.iter().take(MAX_WORD + 1).position(ends).unwrap_or(rest.len().min(MAX_WORD + 1));
        let word = rest.get(..length).unwrap_or_default().to_vec();
        self.at += length;
        self.finish(word, self.line)
    }

    /// Reads a word in quotes. A backslash takes their meaning from a quote and from a backslash.
    fn quoted_word(&mut self, quote: u8) -> Result<Token, ListError> {
        let line = self.line;
        self.at += 1;
        let mut word = Vec::new();
        loop {
            let cut_short = ListPlace::line(line).error(Fault::CutShort("the other quote"));
            let mut byte = self.peek().ok_or(cut_short)?;
            self.at += 1;
            if byte == quote {
                break;
            }
            if byte == b'\\'
                && let Some(escaped @ (b'"' | b'\'' | b'\\')) = self.peek()
            {
                byte = escaped;
                self.at += 1;
            }
            self.line += usize::from(byte == b'\n');
            word.push(byte);
            if word.len() > MAX_WORD {
                break;
            }
        }
        match self.peek() {
            None | Some(b' ' | b'\t' | b'\r' | b'\n' | b';' | b'{') => self.finish(word, line),
            // nginx asks for the same.
            Some(_) if word.len() <= MAX_WORD => {
                Err(ListPlace::line(self.line).error(Fault::Missing("a space", quoted(&word))))
            }
            Some(_) => self.finish(word, line),
        }
    }

    /// A word that was read.
    fn finish(&self, word: Vec<u8>, line: usize) -> Result<Token, ListError> {
        if word.len() > MAX_WORD {
            return Err(ListPlace::line(line).error(Fault::TooLong(quoted(&word))));
        }
        match String::from_utf8(word) {
            Ok(word) => Ok(Token::Word(word, line)),
            Err(error) => Err(ListPlace::line(line).error(Fault::NotUtf8(quoted(error.as_bytes())))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::super::address::Address;
    use super::super::super::id::Group;
    use super::super::super::query::random::Random;
    use super::super::super::server::Terms;
    use super::super::super::state::Admin;
    use super::*;

    /// Everything that a text says.
    fn read(text: &[u8]) -> Result<Vec<List>, String> {
        let mut reader = TextReader::new(text.to_vec());
        while reader.step().map_err(|error| error.to_string())? {}
        Ok(reader.into_lists())
    }

    /// The servers of a text that has one list.
    fn servers(text: &str) -> Vec<Listed> {
        let mut lists = read(text.as_bytes()).unwrap();
        assert_eq!(lists.len(), 1, "{text}");
        lists.remove(0).servers
    }

    #[test]
    fn servers_as_in_the_configuration() {
        let text = "# all of them\nserver 127.0.0.1:81 weight=2 backup down; server [::1];\n\
                    server\n  unix:/s max_conns=5\tmax_fails=0 # why\n  fail_timeout=1m drain\r\n;\
                    server \"app.example.com\" 'weight=3';";
        let found = servers(text);
        let lines: Vec<_> = found.iter().map(|server| server.place.line).collect();
        assert_eq!(lines, [2, 2, 3, 6]);
        let texts: Vec<_> = found.iter().map(|server| server.server.text.as_str()).collect();
        assert_eq!(texts, ["127.0.0.1:81", "[::1]", "unix:/s", "app.example.com"]);
        let found: Vec<_> = found.into_iter().map(|listed| listed.server).collect();
        let [one, two, three, four] = found.as_slice() else { panic!() };
        assert_eq!((one.group, one.terms.admin, one.terms.params.weight), (Group::Backup, Admin::Down, 2));
        assert_eq!((two.group, two.terms), (Group::Primary, Terms::default()));
        assert_eq!(two.address, Address::parse("[::1]:80"));
        let params = Params { weight: 1, max_conns: 5, max_fails: 0, fail_timeout: 60 };
        assert_eq!(three.terms, Terms { admin: Admin::Drain, params });
        assert!(four.address.is_err());
        assert_eq!(four.terms.params.weight, 3);
    }

    #[test]
    fn blocks_for_several_upstreams() {
        let lists = read(b"upstream a {\n server 127.0.0.1:81;\n}\nupstream 'b' { }\n").unwrap();
        let found: Vec<_> = lists
            .iter()
            .map(|list| (list.upstream.as_deref(), list.place.line, list.servers.len()))
            .collect();
        assert_eq!(found, [(Some("a"), 1, 1), (Some("b"), 4, 0)]);
        assert_eq!(read(b" \n# nothing\n"), Ok(Vec::new()));
    }

    #[test]
    fn what_is_wrong_and_where() {
        let table: [(&str, &str); 41] = [
            ("server", "line 1: the list ends where \";\" must follow"),
            ("server 127.0.0.1:81", "line 1: the list ends where \";\" must follow"),
            ("server 127.0.0.1:81 weight=2\n\n", "line 3: the list ends where \";\" must follow"),
            ("server;", "line 1: a server without an address"),
            ("server \"\";", "line 1: a server without an address"),
            ("\nserver a:0;", "line 2: invalid address \"a:0\": port must be between 1 and 65535"),
            ("server ::1;", "line 1: invalid address \"::1\": an ipv6 address needs brackets"),
            ("server 127.0.0.1:81\nserver 127.0.0.1:82;", "line 1: \";\" is missing after \"127.0.0.1:81\""),
            (
                "server 127.0.0.1:81 weight=2\nserver 127.0.0.1:82;",
                "line 1: \";\" is missing after \"weight=2\"",
            ),
            ("server a weight;", "line 1: unknown parameter \"weight\""),
            ("server a\n wieght=1;", "line 2: unknown parameter \"wieght=1\""),
            ("server a weight=x;", "line 1: invalid parameter \"weight=x\": weight: not a number: \"x\""),
            (
                "server a weight=0;",
                "line 1: invalid parameter \"weight=0\": invalid weight \"0\": use drain or down to stop new requests",
            ),
            (
                "server a max_conns=-1;",
                "line 1: invalid parameter \"max_conns=-1\": invalid max_conns \"-1\": must be between 0 and 1000000",
            ),
            (
                "server a fail_timeout=5ms;",
                "line 1: invalid parameter \"fail_timeout=5ms\": fail_timeout: invalid time \"5ms\"",
            ),
            ("server a weight=1 weight=2;", "line 1: duplicate parameter \"weight\""),
            ("server a down down;", "line 1: duplicate parameter \"down\""),
            ("server a down drain;", "line 1: down and drain at once are not allowed"),
            ("server a resolve;", "line 1: resolve: not yet supported"),
            ("server a service=http;", "line 1: service: not yet supported"),
            ("server a route=a;", "line 1: route: not yet supported"),
            ("server a slow_start=30s;", "line 1: slow_start: not yet supported"),
            (
                "zone a 64k;",
                "line 1: unknown directive \"zone\", only \"server\" and \"upstream\" are understood",
            ),
            ("http {", "line 1: unknown directive \"http\", only \"server\" and \"upstream\" are understood"),
            (
                "<html>;",
                "line 1: unknown directive \"<html>\", only \"server\" and \"upstream\" are understood",
            ),
            (";", "line 1: unexpected \";\""),
            ("{", "line 1: unexpected \"{\""),
            ("}", "line 1: unexpected \"}\""),
            ("server a;}", "line 1: unexpected \"}\""),
            ("server a {", "line 1: unexpected \"{\""),
            ("upstream a;", "line 1: \"{\" is missing after \"upstream\""),
            ("upstream {", "line 1: \"upstream\" needs one name"),
            ("upstream a b {", "line 1: \"upstream\" needs one name"),
            ("upstream a {\nserver b;\n", "line 3: the list ends where \"}\" must follow"),
            ("upstream a {\nserver b\n}", "line 3: \";\" is missing after \"b\""),
            ("upstream a {\nupstream b {\n}}", "line 2: unexpected \"upstream\""),
            ("server b;\nupstream a { }", "line 2: unexpected \"upstream\""),
            ("upstream a { }\nserver b;", "line 2: unexpected \"server\" outside of a block"),
            ("upstream a { }\nupstream a { }", "line 2: upstream \"a\" is also in line 1"),
            ("server \"a", "line 1: the list ends where the other quote must follow"),
            ("server \"a\"b;", "line 1: a space is missing after \"a\""),
        ];
        for (text, wanted) in table {
            assert_eq!(read(text.as_bytes()).unwrap_err(), wanted, "{text}");
        }
    }

    #[test]
    fn long_words_and_other_bytes() {
        let start = format!("\"{}...\"", "a".repeat(64));
        for text in [format!("server {};", "a".repeat(5_000)), format!("server '{}';", "a".repeat(5_000))] {
            assert_eq!(read(text.as_bytes()).unwrap_err(), format!("line 1: too long: {start}"));
        }
        assert_eq!(read(b"server \xff;").unwrap_err(), "line 1: invalid utf-8 in \"\\xff\"");
        let many = format!("server a{};", " x".repeat(40));
        assert_eq!(read(many.as_bytes()).unwrap_err(), "line 1: unknown parameter \"x\"");
        assert!(read(b"server 127.0.0.1:81 slow_start=0;").is_ok());
    }

    #[test]
    fn one_bad_line_among_many() {
        let mut text: String =
            (0..10_000).map(|n| format!("server 10.0.{}.{}:80;\n", n / 250, n % 250)).collect();
        assert_eq!(servers(&text).len(), 10_000);
        text = text.replace("server 10.0.30.7:80;", "server 10.0.30.7:8O;");
        let wanted = "line 7508: invalid address \"10.0.30.7:8O\": port must be between 1 and 65535";
        assert_eq!(read(text.as_bytes()).unwrap_err(), wanted);
    }

    #[test]
    fn random_texts_are_read_or_refused_in_words() {
        let pieces = [
            "server",
            "upstream",
            " ",
            " ",
            "\n",
            ";",
            "{",
            "}",
            "a",
            "127.0.0.1:81",
            "weight=2",
            "down",
            "#",
            "\"",
            "'",
            "\\",
            "backup",
            "=",
            "\u{fe}",
        ];
        let mut random = Random::new(7);
        for _ in 0..20_000 {
            let text: String = (0..random.below(24)).map(|_| random.pick(&pieces)).collect();
            match read(text.as_bytes()) {
                Ok(lists) => assert!(lists.len() <= text.len()),
                Err(error) => assert!(error.starts_with("line ") && !error.contains('\n'), "{error}"),
            }
        }
    }
}
