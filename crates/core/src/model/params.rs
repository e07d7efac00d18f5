//! The parameters of a server that can be changed while nginx runs, each in one row of [`PARAMS`].
//!
//! The control interfaces, the Lua functions and the state file read names, bounds and units from here.

use std::fmt;

use super::query::quoted;

/// The parameters of one server. Values read from nginx may lie outside the bounds of [`PARAMS`]: those hold for changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Params {
    /// Share of the requests compared to the other servers; nginx's configuration takes 1 to the largest `ngx_int_t`.
    pub weight: u64,
    /// Most connections at a time that the group's zone counts; 0 for no limit.
    pub max_conns: u64,
    /// Failures within `fail_timeout` after which the server is unavailable; 0 never makes it so.
    pub max_fails: u64,
    /// Seconds in which failures are counted, and for which the server is then unavailable.
    pub fail_timeout: u64,
}

/// A parameter of a server.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Param {
    /// `weight`.
    Weight,
    /// `max_conns`.
    MaxConns,
    /// `max_fails`.
    MaxFails,
    /// `fail_timeout`.
    FailTimeout,
}

/// How the value of a parameter is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unit {
    /// Decimal digits.
    Number,
    /// Decimal digits for seconds, or nginx's time syntax, `1m30s`.
    Seconds,
}

/// All that is known about one parameter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ParamRow {
    /// The parameter.
    pub param: Param,
    /// Its name in the `server` directive, in arguments, in JSON and in Lua.
    pub name: &'static str,
    /// Its value in a `server` directive that does not name it (`ngx_http_upstream_server()`).
    pub default: u64,
    /// The smallest value that can be set at run time.
    pub min: u64,
    /// The largest value that can be set at run time.
    pub max: u64,
    /// How its value is written.
    pub unit: Unit,
}

/// The table of parameters, one row each, in the order in which a listing shows them.
pub const PARAMS: [ParamRow; 4] = [
    // 0 would be a division by zero in nginx's hash and random methods. The consistent hash makes 160 points of 16 bytes
    // for each unit of weight, so that a server of weight 65535 alone costs some 160 MB in every worker.
    ParamRow { param: Param::Weight, name: "weight", default: 1, min: 1, max: 65_535, unit: Unit::Number },
    // 0 is "no limit". A host has some 64 thousand ports towards one address; a million is beyond what can be reached.
    ParamRow {
        param: Param::MaxConns,
        name: "max_conns",
        default: 0,
        min: 0,
        max: 1_000_000,
        unit: Unit::Number,
    },
    // 0 is "never". A larger number of failures than a million is a wrong digit; nginx divides the weight by it.
    ParamRow {
        param: Param::MaxFails,
        name: "max_fails",
        default: 1,
        min: 0,
        max: 1_000_000,
        unit: Unit::Number,
    },
    // A year: a server that shall be away for longer is to be marked down. The sum with any time of day fits into 64 bits.
    ParamRow {
        param: Param::FailTimeout,
        name: "fail_timeout",
        default: 10,
        min: 0,
        max: 31_536_000,
        unit: Unit::Seconds,
    },
];

/// The units of nginx's time syntax with their seconds, in the only order in which they may follow each other.
const TIME_UNITS: [(char, u64); 7] =
    [('y', 31_536_000), ('M', 2_592_000), ('w', 604_800), ('d', 86_400), ('h', 3_600), ('m', 60), ('s', 1)];

/// Why the value of a parameter was refused; texts are stored as [`quoted`] returns them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ParamError {
    /// The value is not made of digits, or for a time has none; holds the value, or nothing if
    /// it is not known.
    NotANumber(Param, String),
    /// The value has digits, but is not a time in whole seconds; holds the value.
    InvalidTime(Param, String),
    /// A weight of 0; holds the value.
    ZeroWeight(String),
    /// The value is negative, too small or too large; holds the value.
    OutOfRange(Param, String),
}

// === impl Params ===

impl Params {
    /// The value of one parameter, in the unit of its row.
    pub fn get(&self, param: Param) -> u64 {
        match param {
            Param::Weight => self.weight,
            Param::MaxConns => self.max_conns,
            Param::MaxFails => self.max_fails,
            Param::FailTimeout => self.fail_timeout,
        }
    }

    /// Sets one parameter to a value that [`Param::parse`] or [`Param::check`] returned, or that nginx holds.
    pub fn set(&mut self, param: Param, value: u64) {
        match param {
            Param::Weight => self.weight = value,
            Param::MaxConns => self.max_conns = value,
            Param::MaxFails => self.max_fails = value,
            Param::FailTimeout => self.fail_timeout = value,
        }
    }
}

impl Default for Params {
    /// The parameters of a `server` directive that has an address only.
    fn default() -> Params {
        Params {
            weight: Param::Weight.row().default,
            max_conns: Param::MaxConns.row().default,
            max_fails: Param::MaxFails.row().default,
            fail_timeout: Param::FailTimeout.row().default,
        }
    }
}

// === impl Param ===

impl Param {
    /// The row of this parameter.
    pub fn row(self) -> &'static ParamRow {
        let [weight, max_conns, max_fails, fail_timeout] = &PARAMS;
        match self {
            Param::Weight => weight,
            Param::MaxConns => max_conns,
            Param::MaxFails => max_fails,
            Param::FailTimeout => fail_timeout,
        }
    }

    /// Parses a value as an operator writes it and checks its bounds.
    ///
    /// A number is decimal digits without sign or space. A time is a number of seconds, or numbers with the units y, M, w,
    /// d, h, m, s, each at most once and in this order (`ngx_parse_time()` with `is_sec`); a last number without a unit is
    /// seconds. Milliseconds are refused, for nginx keeps this time in seconds.
    pub fn parse(self, text: &str) -> Result<u64, ParamError> {
        if is_negative(text) {
            return Err(self.out_of_range(text));
        }
        let value = match self.row().unit {
            Unit::Number => {
                if !is_digits(text) {
                    return Err(ParamError::NotANumber(self, quoted(text.as_bytes())));
                }
                text.parse().ok()
            }
            Unit::Seconds => {
                if !text.bytes().any(|byte| byte.is_ascii_digit()) {
                    return Err(ParamError::NotANumber(self, quoted(text.as_bytes())));
                }
                match split_time(text) {
                    Some(parts) => sum_time(&parts),
                    None => {
                        return Err(ParamError::InvalidTime(self, quoted(text.as_bytes())));
                    }
                }
            }
        };
        // A number that no u64 can hold is out of range, not junk.
        let Some(value) = value else {
            return Err(self.out_of_range(text));
        };
        self.check(value, text)
    }

    /// Checks the bounds of a value that was written as `text`.
    fn check(self, value: u64, text: &str) -> Result<u64, ParamError> {
        let row = self.row();
        if (row.min..=row.max).contains(&value) {
            return Ok(value);
        }
        match (self, value) {
            (Param::Weight, 0) => Err(ParamError::ZeroWeight(quoted(text.as_bytes()))),
            _ => Err(self.out_of_range(text)),
        }
    }

    /// The error of a value outside the bounds.
    fn out_of_range(self, text: &str) -> ParamError {
        ParamError::OutOfRange(self, quoted(text.as_bytes()))
    }
}

// === impl ParamError ===

impl ParamError {
    /// The parameter whose value was refused; some replies have a code for each.
    pub fn param(&self) -> Param {
        match self {
            ParamError::NotANumber(param, _)
            | ParamError::InvalidTime(param, _)
            | ParamError::OutOfRange(param, _) => *param,
            ParamError::ZeroWeight(_) => Param::Weight,
        }
    }
}

impl fmt::Display for ParamError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ParamRow { name, min, max, .. } = self.param().row();
        match self {
            // The first text is that of ngx_dynamic_upstream, which scripts compare.
            ParamError::NotANumber(_, text) if text.is_empty() => write!(f, "{name}: not a number"),
            ParamError::NotANumber(_, text) => write!(f, "{name}: not a number: {text}"),
            ParamError::InvalidTime(_, text) => write!(f, "{name}: invalid time {text}"),
            ParamError::ZeroWeight(text) => {
                write!(f, "invalid {name} {text}: use drain or down to stop new requests")
            }
            ParamError::OutOfRange(_, text) => {
                write!(f, "invalid {name} {text}: must be between {min} and {max}")
            }
        }
    }
}

impl std::error::Error for ParamError {}

/// Whether text is one or more decimal digits.
fn is_digits(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit())
}

/// Whether text is a minus sign and digits: a number, but not one that any parameter can have.
fn is_negative(text: &str) -> bool {
    text.strip_prefix('-').is_some_and(is_digits)
}

/// Splits a time into its numbers with the seconds of their units; `None` if a number or unit is missing, unknown,
/// repeated or out of order.
///
/// At most seven parts are returned, because each unit is taken once.
fn split_time(text: &str) -> Option<Vec<(&str, u64)>> {
    let mut parts = Vec::new();
    let mut units = TIME_UNITS.iter();
    let mut rest = text;
    while !rest.is_empty() {
        let end = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len());
        let (number, after) = rest.split_at_checked(end)?;
        if number.is_empty() {
            return None;
        }
        let mut characters = after.chars();
        let unit = characters.next().unwrap_or('s');
        // The iterator goes on where it stopped, so a unit that is repeated or comes too late is not found.
        let (_, seconds) = units.find(|(name, _)| *name == unit)?;
        parts.push((number, *seconds));
        rest = characters.as_str();
    }
    Some(parts)
}

/// The sum of the parts of a time in seconds; `None` if it does not fit.
fn sum_time(parts: &[(&str, u64)]) -> Option<u64> {
    parts.iter().try_fold(0u64, |sum, (number, seconds)| {
        let value = number.parse::<u64>().ok()?;
        sum.checked_add(value.checked_mul(*seconds)?)
    })
}

#[cfg(test)]
mod tests {
    use super::super::query::random::Random;
    use super::*;

    /// The message of a refused value, or the value in a text of its own.
    fn outcome(param: Param, text: &str) -> String {
        match param.parse(text) {
            Ok(value) => format!("= {value}"),
            Err(error) => error.to_string(),
        }
    }

    #[test]
    fn table_and_struct_agree() {
        let mut params = Params::default();
        assert_eq!((params.weight, params.max_conns), (1, 0));
        assert_eq!((params.max_fails, params.fail_timeout), (1, 10));
        for (number, row) in (100..).zip(&PARAMS) {
            assert_eq!(row.param.row(), row);
            assert_eq!(params.get(row.param), row.default);
            assert!((row.min..=row.max).contains(&row.default));
            params.set(row.param, number);
        }
        assert_eq!(PARAMS.map(|row| params.get(row.param)), [100, 101, 102, 103]);
        assert_eq!((params.weight, params.max_conns), (100, 101));
        assert_eq!((params.max_fails, params.fail_timeout), (102, 103));
    }

    #[test]
    fn numbers() {
        for (param, text, value) in [
            (Param::Weight, "1", 1),
            (Param::Weight, "65535", 65_535),
            (Param::Weight, "0010", 10),
            (Param::MaxConns, "0", 0),
            (Param::MaxConns, "1000000", 1_000_000),
            (Param::MaxFails, "0", 0),
        ] {
            assert_eq!(param.parse(text), Ok(value));
        }
        for text in ["", "abc", "10x", "10s", "+1", "-", "--1", "1 ", "1.0", "0x10", "\u{661}", "1\0"] {
            assert_eq!(
                outcome(Param::Weight, text),
                format!("weight: not a number: {}", quoted(text.as_bytes()))
            );
            assert_eq!(
                outcome(Param::MaxConns, text),
                format!("max_conns: not a number: {}", quoted(text.as_bytes()))
            );
            assert_eq!(
                outcome(Param::MaxFails, text),
                format!("max_fails: not a number: {}", quoted(text.as_bytes()))
            );
        }
        for text in ["0", "00"] {
            let expected = format!("invalid weight \"{text}\": use drain or down to stop new requests");
            assert_eq!(outcome(Param::Weight, text), expected);
        }
        for text in ["-1", "65536", "18446744073709551616"] {
            let expected = format!("invalid weight \"{text}\": must be between 1 and 65535");
            assert_eq!(outcome(Param::Weight, text), expected);
        }
        for text in ["-1", "-0", "1000001", "99999999999", "18446744073709551616"] {
            for param in [Param::MaxConns, Param::MaxFails] {
                let name = param.row().name;
                let expected = format!("invalid {name} \"{text}\": must be between 0 and 1000000");
                assert_eq!(outcome(param, text), expected);
            }
        }
        let long = outcome(Param::MaxFails, &"9".repeat(1_000));
        assert!(long.len() < 130 && long.contains("999...\": must be"), "{long}");
    }

    #[test]
    fn times() {
        let junk = |text: &str| format!("fail_timeout: invalid time \"{text}\"");
        let range = |text: &str| format!("invalid fail_timeout \"{text}\": must be between 0 and 31536000");
        for (text, expected) in [
            ("0", 0),
            ("5", 5),
            ("10s", 10),
            ("1m", 60),
            ("1m30s", 90),
            ("1m30", 90),
            ("1h", 3_600),
            ("1d", 86_400),
            ("1w", 604_800),
            ("2M", 5_184_000),
            ("1y", 31_536_000),
            ("1w1d1h1m1s", 604_800 + 86_400 + 3_600 + 61),
            ("90m", 5_400),
            ("31536000", 31_536_000),
        ] {
            assert_eq!(Param::FailTimeout.parse(text), Ok(expected), "{text:?}");
        }
        // Twice the same unit, wrong order, no number before a unit, milliseconds, and what is no unit.
        for text in [
            "1s1s", "1m1m", "1s1m", "1m1h", "1s5", "1hm", "s1", "500ms", "1m5ms", "10x", "1S", "1D", "1.5s",
            "1 m", " 1", "1 ", "+5", "-5s", "1m-5s", "--1", "1\u{e9}",
        ] {
            assert_eq!(outcome(Param::FailTimeout, text), junk(text));
        }
        for text in ["", "abc", "s", "ms", "-", "!"] {
            assert_eq!(
                outcome(Param::FailTimeout, text),
                format!("fail_timeout: not a number: {}", quoted(text.as_bytes()))
            );
        }
        for text in "-1|31536001|1y1s|13M|99999999999999999999|999999999999999999y".split('|') {
            assert_eq!(outcome(Param::FailTimeout, text), range(text));
        }
    }

    #[test]
    fn errors_say_what_they_are() {
        assert_eq!(ParamError::ZeroWeight(String::new()).param(), Param::Weight);
        assert_eq!(outcome(Param::FailTimeout, "1\n"), "fail_timeout: invalid time \"1\\x0a\"");
    }

    /// A hundred thousand texts: times that are built from known parts, numbers around the bounds, and damaged ones.
    #[test]
    fn random_values() {
        let mut random = Random::new(0x7061_7261_6d73);
        for _ in 0..100_000 {
            let param = PARAMS.get(random.below(4)).map_or(Param::FailTimeout, |row| row.param);
            let row = param.row();
            let mut text = String::new();
            let mut sum = 0;
            if row.unit == Unit::Seconds && random.below(2) == 0 {
                for (unit, seconds) in TIME_UNITS {
                    if random.below(3) == 0 {
                        let number = random.next() >> (60 - random.below(10));
                        text.push_str(&number.to_string());
                        text.push(unit);
                        sum += number * seconds;
                    }
                }
            } else {
                let number = random.next() >> (random.below(20) + 40);
                text = number.to_string();
                sum = number;
            }
            let is_valid = !text.is_empty() && (row.min..=row.max).contains(&sum);
            assert_eq!(param.parse(&text).ok(), is_valid.then_some(sum), "{} {text}", row.name);

            let mut bytes = text.into_bytes();
            random.mutate(&mut bytes, b"0123456789 +-.smhdwMyx\xc3\xa9\n\0");
            let damaged = String::from_utf8_lossy(&bytes);
            match param.parse(&damaged) {
                Ok(value) => {
                    assert!((row.min..=row.max).contains(&value), "{} {damaged}", row.name);
                    assert_eq!(param.parse(&value.to_string()), Ok(value));
                    assert!(damaged.bytes().all(|byte| byte.is_ascii_alphanumeric()));
                }
                Err(error) => assert_eq!(error.param(), param),
            }
        }
    }
}
