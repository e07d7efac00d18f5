//! Lists of servers in JSON: an array of objects with the fields of the API, or an object of such arrays by the names of
//! their upstreams.
//!
//! The text is taken apart server by server, so that a long list can be read in slices; each server is read by
//! serde_json.

use std::collections::HashMap;

use serde::Deserialize;
use serde_json::Value;

use crate::model::list::{Fault, Flags, List, ListError, ListPlace, Listed};
use crate::model::params::{PARAMS, Param, Params};
use crate::model::query::quoted;

/// Longest server or name, in bytes.
const MAX_PIECE: usize = 16_384;

/// A server, as it is written.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Item {
    /// Its text.
    #[serde(default)]
    server: String,
    /// A number.
    weight: Option<Value>,
    /// A number.
    max_conns: Option<Value>,
    /// A number.
    max_fails: Option<Value>,
    /// A number of seconds, or a time with units.
    fail_timeout: Option<Value>,
    /// Whether it is a backup.
    #[serde(default)]
    backup: bool,
    /// Whether it is down.
    #[serde(default)]
    down: bool,
    /// Whether it is drained.
    #[serde(default)]
    drain: bool,
}

/// Where the reader is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Inside {
    /// Before everything.
    Start,
    /// In the object of upstreams; `first` before its first name.
    Upstreams {
        /// Whether no name was read.
        first: bool,
    },
    /// In an array of servers, after so many.
    Servers {
        /// How many were read.
        read: usize,
        /// Whether the array is the whole text.
        only: bool,
    },
    /// Behind everything.
    End,
}

/// Reads a list server by server.
pub struct JsonReader {
    /// The whole text.
    text: Vec<u8>,
    /// How much of it was read, in bytes.
    at: usize,
    /// The line there.
    line: usize,
    /// Where that is.
    inside: Inside,
    /// What was read.
    lists: Vec<List>,
    /// Where each upstream is named.
    named: HashMap<String, ListPlace>,
}

impl JsonReader {
    /// A reader of a text.
    pub fn new(text: Vec<u8>) -> Self {
        Self { text, at: 0, line: 1, inside: Inside::Start, lists: Vec::new(), named: HashMap::new() }
    }

    /// What was read: one list without a name, or lists with names.
    pub fn into_lists(self) -> Vec<List> {
        self.lists
    }

    /// Reads a server, or a bracket. False at the end of the text.
    ///
    /// # Errors
    ///
    /// What is wrong there.
    pub fn step(&mut self) -> Result<bool, ListError> {
        self.skip();
        match self.inside {
            Inside::Start => match self.next("a list")? {
                b'[' => self.begin_list(None, true),
                b'{' => self.inside = Inside::Upstreams { first: true },
                other => return Err(self.unexpected(other)),
            },
            Inside::Upstreams { first } => return self.upstream(first),
            Inside::Servers { read, only } => return self.server(read, only),
            Inside::End => match self.text.get(self.at) {
                None => return Ok(false),
                Some(other) => return Err(self.unexpected(*other)),
            },
        }
        Ok(true)
    }

    /// Reads the name of an upstream and the beginning of its list, or the end of all.
    fn upstream(&mut self, first: bool) -> Result<bool, ListError> {
        if !self.goes_on(first, b'}', "\"}\"")? {
            self.inside = Inside::End;
            return Ok(true);
        }
        let place = ListPlace::line(self.line);
        let piece = self.piece(b'"')?;
        let name: String = parse(&piece, place)?;
        self.skip();
        match self.next("\":\"")? {
            b':' => self.skip(),
            other => return Err(self.unexpected(other)),
        }
        match self.next("\"[\"")? {
            b'[' => {}
            other => return Err(self.unexpected(other)),
        }
        self.named.try_reserve(1).map_err(|_| place.full())?;
        self.lists.try_reserve(1).map_err(|_| place.full())?;
        if let Some(other) = self.named.insert(name.clone(), place) {
            return Err(place.error(Fault::UpstreamTwice(quoted(name.as_bytes()), other)));
        }
        self.begin_list(Some(name), false);
        Ok(true)
    }

    /// Reads a server, or the end of its list.
    fn server(&mut self, read: usize, only: bool) -> Result<bool, ListError> {
        if !self.goes_on(read == 0, b']', "\"]\"")? {
            self.inside = if only { Inside::End } else { Inside::Upstreams { first: false } };
            return Ok(true);
        }
        let place = ListPlace { line: self.line, item: Some(read + 1) };
        let piece = self.piece(b'{').map_err(|error| ListError { place, ..error })?;
        let listed = listed(parse(&piece, place)?, place)?;
        if let Some(list) = self.lists.last_mut() {
            list.servers.try_reserve(1).map_err(|_| place.full())?;
            list.servers.push(listed);
        }
        self.inside = Inside::Servers { read: read + 1, only };
        Ok(true)
    }

    /// Begins a list.
    fn begin_list(&mut self, upstream: Option<String>, only: bool) {
        self.lists.push(List { place: ListPlace::line(self.line), upstream, servers: Vec::new() });
        self.inside = Inside::Servers { read: 0, only };
    }

    /// Whether another element follows, and not `end`.
    fn goes_on(&mut self, first: bool, end: u8, wanted: &'static str) -> Result<bool, ListError> {
        let byte = self.text.get(self.at).copied();
        match byte {
            None => Err(ListPlace::line(self.line).error(Fault::CutShort(wanted))),
            Some(byte) if byte == end => {
                self.at += 1;
                Ok(false)
            }
            Some(b',') if !first => {
                self.at += 1;
                self.skip();
                Ok(true)
            }
            Some(_) if first => Ok(true),
            Some(other) => Err(self.unexpected(other)),
        }
    }

    /// Takes the next byte, which must not be the end.
    fn next(&mut self, wanted: &'static str) -> Result<u8, ListError> {
        let byte = self.text.get(self.at).copied();
        let byte = byte.ok_or_else(|| ListPlace::line(self.line).error(Fault::CutShort(wanted)))?;
        self.at += 1;
        Ok(byte)
    }

    /// The refusal of a byte that may not stand here.
    fn unexpected(&self, byte: u8) -> ListError {
        ListPlace::line(self.line).error(Fault::Unexpected(quoted(&[byte])))
    }

    /// Skips white space.
    fn skip(&mut self) {
        while let Some(byte @ (b' ' | b'\t' | b'\r' | b'\n')) = self.text.get(self.at) {
            self.line += usize::from(*byte == b'\n');
            self.at += 1;
        }
    }

    /// Takes an object or a string that begins here with `first`.
    fn piece(&mut self, first: u8) -> Result<Vec<u8>, ListError> {
        let rest = self.text.get(self.at..).unwrap_or_default();
        match rest.first() {
            Some(byte) if *byte == first => {}
            Some(other) => return Err(self.unexpected(*other)),
            None => return Err(ListPlace::line(self.line).error(Fault::CutShort("another element"))),
        }
        let (mut depth, mut in_string, mut escaped) = (0_usize, false, false);
        for (at, byte) in rest.iter().take(MAX_PIECE).enumerate() {
            match byte {
                _ if escaped => escaped = false,
                b'\\' if in_string => escaped = true,
                b'"' => in_string = !in_string,
                b'{' if !in_string => depth += 1,
                b'}' if !in_string => depth = depth.saturating_sub(1),
                _ => {}
            }
            if depth == 0 && !in_string {
                let piece = rest.get(..=at).unwrap_or_default().to_vec();
                self.at += piece.len();
                self.line += piece.iter().filter(|byte| **byte == b'\n').count();
                return Ok(piece);
            }
        }
        let place = ListPlace::line(self.line);
        Err(place.error(if rest.len() > MAX_PIECE {
            Fault::TooLong(quoted(rest))
        } else if in_string {
            Fault::CutShort("the other quote")
        } else {
            Fault::CutShort("\"}\"")
        }))
    }
}

/// Reads a piece.
fn parse<'a, T: Deserialize<'a>>(piece: &'a [u8], place: ListPlace) -> Result<T, ListError> {
    serde_json::from_slice(piece).map_err(|error| {
        // The place in the piece says nothing.
        let text = error.to_string();
        let text = text.rsplit_once(" at line ").map_or(text.as_str(), |(text, _)| text);
        let text: String = text.chars().filter(|character| !character.is_control()).take(200).collect();
        place.error(Fault::Json(text, quoted(piece)))
    })
}

/// A server from what was written.
fn listed(item: Item, place: ListPlace) -> Result<Listed, ListError> {
    let mut params = Params::default();
    for row in &PARAMS {
        let value = match row.param {
            Param::Weight => &item.weight,
            Param::MaxConns => &item.max_conns,
            Param::MaxFails => &item.max_fails,
            Param::FailTimeout => &item.fail_timeout,
        };
        let text = match value {
            None => continue,
            Some(Value::String(text)) => text.clone(),
            Some(other) => other.to_string(),
        };
        let shown = || quoted(format!("{}={text}", row.name).as_bytes());
        let value = row.param.parse(&text).map_err(|error| place.error(Fault::Param(shown(), error)))?;
        params.set(row.param, value);
    }
    let flags = Flags { backup: item.backup, down: item.down, drain: item.drain };
    Listed::new(place, item.server, params, flags)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::id::Group;
    use crate::model::state::Admin;

    /// Everything that a text says.
    fn read(text: &[u8]) -> Result<Vec<List>, String> {
        let mut reader = JsonReader::new(text.to_vec());
        while reader.step().map_err(|error| error.to_string())? {}
        Ok(reader.into_lists())
    }

    #[test]
    fn servers_with_the_fields_of_the_api() {
        let text = br#"
            [ {"server":"127.0.0.1:81","weight":2,"max_conns":"5","max_fails":0,"fail_timeout":"1m","down":true},
              {"server":"unix:/{\"}","backup":true,"fail_timeout":5,"weight":null,"drain":true}, { "server":"[::1]" }
            ]"#;
        let lists = read(text).unwrap();
        let [one, two, three] = lists[0].servers.as_slice() else { panic!("{lists:?}") };
        let params = Params { weight: 2, max_conns: 5, max_fails: 0, fail_timeout: 60 };
        assert_eq!(
            (one.server.terms.params, one.server.terms.admin, one.server.group),
            (params, Admin::Down, Group::Primary)
        );
        assert_eq!((one.place, two.place.line), (ListPlace { line: 2, item: Some(1) }, 3));
        assert_eq!(
            (two.server.text.as_str(), two.server.terms.admin, two.server.group),
            ("unix:/{\"}", Admin::Drain, Group::Backup)
        );
        assert_eq!((three.place.item, three.server.terms.params), (Some(3), Params::default()));
        assert_eq!(read(b"[]").unwrap()[0].servers.len(), 0);
    }

    #[test]
    fn several_upstreams() {
        let lists = read(br#"{ "a": [{"server":"127.0.0.1:81"}], "b\u0062" : [] }"#).unwrap();
        let found: Vec<_> = lists.iter().map(|list| (list.upstream.as_deref(), list.servers.len())).collect();
        assert_eq!(found, [(Some("a"), 1), (Some("bb"), 0)]);
        assert_eq!(read(b"{}"), Ok(Vec::new()));
    }

    #[test]
    fn what_is_wrong_and_where() {
        let table: [(&str, &str); 25] = [
            ("", "line 1: the list ends where a list must follow"),
            ("server 127.0.0.1;", "line 1: unexpected \"s\""),
            ("[", "line 1: the list ends where \"]\" must follow"),
            ("[\n{", "line 2, server 1: the list ends where \"}\" must follow"),
            ("[{\"server", "line 1, server 1: the list ends where the other quote must follow"),
            ("[{\"server\":\"a\"}", "line 1: the list ends where \"]\" must follow"),
            ("[{\"server\":\"a\"},", "line 1, server 2: the list ends where another element must follow"),
            ("[{\"server\":\"a\"},]", "line 1, server 2: unexpected \"]\""),
            ("[{\"server\":\"a\"} {", "line 1: unexpected \"{\""),
            ("[{\"server\":\"a\"}] x", "line 1: unexpected \"x\""),
            ("[7]", "line 1, server 1: unexpected \"7\""),
            ("[{}]", "line 1, server 1: a server without an address"),
            (
                "[{\"server\":\"a:0\"}]",
                "line 1, server 1: invalid address \"a:0\": port must be between 1 and 65535",
            ),
            (
                "[{\"server\":7}]",
                "line 1, server 1: invalid type: integer `7`, expected a string, in \"{\\x22server\\x22:7}\"",
            ),
            (
                "[{\"weight\":1,\"weight\":1}]",
                "line 1, server 1: duplicate field `weight`, in \"{\\x22weight\\x22:1,\\x22weight\\x22:1}\"",
            ),
            (
                "[{\"server\":\"a\",\"weight\":0}]",
                "line 1, server 1: invalid parameter \"weight=0\": invalid weight \"0\": use drain or down to stop new requests",
            ),
            (
                "[{\"server\":\"a\",\"weight\":-1}]",
                "line 1, server 1: invalid parameter \"weight=-1\": invalid weight \"-1\": must be between 1 and 65535",
            ),
            (
                "[{\"server\":\"a\",\"weight\":1.5}]",
                "line 1, server 1: invalid parameter \"weight=1.5\": weight: not a number: \"1.5\"",
            ),
            (
                "[{\"server\":\"a\",\"weight\":[]}]",
                "line 1, server 1: invalid parameter \"weight=[]\": weight: not a number: \"[]\"",
            ),
            (
                "[{\"server\":\"a\",\"down\":true,\"drain\":true}]",
                "line 1, server 1: down and drain at once are not allowed",
            ),
            ("{\"a\"}", "line 1: unexpected \"}\""),
            ("{\"a\":7}", "line 1: unexpected \"7\""),
            ("{\"a\":[],\n\"a\":[]}", "line 2: upstream \"a\" is also in line 1"),
            ("{\"a\":[]", "line 1: the list ends where \"}\" must follow"),
            ("{\"a\":[{\"server\":\"\"}]}", "line 1, server 1: a server without an address"),
        ];
        for (text, wanted) in table {
            assert_eq!(read(text.as_bytes()).unwrap_err(), wanted, "{text}");
        }
        let unknown = read(br#"[{"server":"a","state":"up"}]"#).unwrap_err();
        assert!(unknown.starts_with("line 1, server 1: unknown field `state`, expected one of"), "{unknown}");
        let long = format!("[{{\"server\":\"{}\"}}]", "a".repeat(20_000));
        assert!(read(long.as_bytes()).unwrap_err().starts_with("line 1, server 1: too long: "));
    }
}
