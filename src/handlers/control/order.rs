//! What the arguments of [`super::dynamic`] ask for.

use std::collections::HashSet;
use std::str::FromStr;

use crate::model::id::ServerId;
use crate::model::params::{PARAMS, Param};
use crate::model::query::{Query, quoted};
use crate::model::state::Admin;
use crate::ops::{Change, OpError, Selector};

use super::super::accept::FORMAT;
use super::super::arguments::{flag, invalid, only};
use super::super::error::{Kind, Refusal};

/// The arguments, beside the parameters of servers.
const KNOWN: [&str; 16] = [
    "upstream", "verbose", "add", "remove", "backup", "server", "servers", "peer", "id", "up", "down",
    "drain", "stream", "ipv6", "note", FORMAT,
];

/// The arguments that choose servers.
const SELECTORS: [&str; 4] = ["server", "servers", "peer", "id"];

/// The flags that set the state of servers, each pair of which excludes the other.
const STATES: [(&str, Admin); 3] = [("down", Admin::Down), ("up", Admin::Up), ("drain", Admin::Drain)];

/// What is asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Order {
    /// Name of the upstream, or of its zone.
    pub upstream: String,
    /// Whether a listing shows the parameters.
    pub verbose: bool,
    /// The servers; there are some if there is a change.
    pub choice: Choice,
    /// The change; empty for a listing.
    pub change: Change,
    /// The client's words.
    pub note: Option<String>,
}

/// How servers were chosen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Choice {
    /// Not at all.
    None,
    /// By `id=`.
    Id(ServerId),
    /// By another argument for one.
    One(Selector),
    /// By `servers=`.
    Several(Vec<Selector>),
}

impl Choice {
    /// The selectors.
    pub fn selectors(&self) -> Vec<Selector> {
        match self {
            Self::None => Vec::new(),
            Self::Id(id) => vec![Selector::Id(*id)],
            Self::One(selector) => vec![selector.clone()],
            Self::Several(selectors) => selectors.clone(),
        }
    }
}

impl Order {
    /// Understands the arguments.
    ///
    /// # Errors
    ///
    /// The first thing that is wrong with them.
    pub fn parse(query: &Query) -> Result<Self, Refusal> {
        let known: Vec<&str> = KNOWN.into_iter().chain(PARAMS.iter().map(|row| row.name)).collect();
        only(query, &known)?;
        let upstream = query.get("upstream").filter(|name| !name.is_empty());
        let upstream = upstream.ok_or_else(|| Refusal::argument("upstream required"))?;
        let verbose = flag(query, "verbose")?;
        let backup = flag(query, "backup")?;
        refuse_what_comes_later(query)?;
        let change = Change { admin: admin(query)?, params: params(query)? };
        let choice = choice(query)?;
        if !change.is_empty() {
            if choice == Choice::None {
                return Err(Refusal::argument("'server' argument required"));
            }
            if backup {
                // It cannot make a backup of a primary, and must not seem to.
                return Err(Refusal::argument("backup: only for a server that is added"));
            }
        }
        Ok(Self {
            upstream: upstream.to_owned(),
            verbose,
            choice,
            change,
            note: query.get("note").filter(|note| !note.is_empty()).map(str::to_owned),
        })
    }
}

/// Refuses what other modules do with these arguments and this one does not, rather than not doing it in silence.
fn refuse_what_comes_later(query: &Query) -> Result<(), Refusal> {
    let (add, remove) = (flag(query, "add")?, flag(query, "remove")?);
    if add && remove {
        return Err(both("add", "remove"));
    }
    // Only says which addresses of a name are added, so that there is nothing to refuse.
    flag(query, "ipv6")?;
    for (name, is_set) in [("add", add), ("remove", remove), ("stream", flag(query, "stream")?)] {
        if is_set {
            return Err(Refusal::new(Kind::NotSupported, format!("{name}: not yet supported")));
        }
    }
    Ok(())
}

/// The state that is asked for.
fn admin(query: &Query) -> Result<Option<Admin>, Refusal> {
    let mut found: Option<(&str, Admin)> = None;
    for (name, admin) in STATES {
        if flag(query, name)? {
            if let Some((other, _)) = found {
                return Err(both(other, name));
            }
            found = Some((name, admin));
        }
    }
    Ok(found.map(|(_, admin)| admin))
}

/// The parameters that are asked for.
fn params(query: &Query) -> Result<Vec<(Param, u64)>, Refusal> {
    PARAMS
        .iter()
        .filter_map(|row| query.get(row.name).map(|value| (row.param, value)))
        .map(|(param, value)| Ok((param, param.parse(value)?)))
        .collect()
}

/// The servers that are chosen. An empty `server=` or `peer=` chooses none, as it always did.
fn choice(query: &Query) -> Result<Choice, Refusal> {
    let is_given = |name: &&str| {
        query.get(name).is_some_and(|value| !value.is_empty() || matches!(*name, "servers" | "id"))
    };
    let mut given = SELECTORS.into_iter().filter(is_given);
    let Some(name) = given.next() else {
        return Ok(Choice::None);
    };
    if let Some(other) = given.next() {
        return Err(both(name, other));
    }
    let value = query.get(name).unwrap_or_default();
    match name {
        "server" => Ok(Choice::One(Selector::Server(value.to_owned()))),
        "servers" => several(value).map(Choice::Several),
        "peer" => peer(value).map(Choice::One),
        _ => number(value).map(|id| Choice::Id(ServerId(id))).ok_or_else(|| invalid(value, name)),
    }
}

/// Digits as a number. No sign, which `parse` would take.
fn number<T: FromStr>(text: &str) -> Option<T> {
    text.bytes().all(|byte| byte.is_ascii_digit()).then(|| text.parse().ok()).flatten()
}

/// The position that `peer=` means if it is made of digits, else the server of that text.
fn peer(value: &str) -> Result<Selector, Refusal> {
    if !value.bytes().all(|byte| byte.is_ascii_digit()) {
        return Ok(Selector::Server(value.to_owned()));
    }
    // More digits than any list is long.
    number(value).map(Selector::Position).ok_or_else(|| OpError::BadPosition(usize::MAX).into())
}

/// The servers of a list with commas.
fn several(value: &str) -> Result<Vec<Selector>, Refusal> {
    let mut seen = HashSet::new();
    value
        .split(',')
        .map(|server| match server {
            "" => Err(invalid(value, "servers")),
            server if !seen.insert(server) => Err(Refusal::argument(format!(
                "duplicate server {} in \"servers\"",
                quoted(server.as_bytes())
            ))),
            server => Ok(Selector::Server(server.to_owned())),
        })
        .collect()
}

/// The refusal of two arguments that exclude each other.
fn both(one: &str, other: &str) -> Refusal {
    Refusal::argument(format!("{one} and {other} at once are not allowed"))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The order for `upstream=u` and these arguments.
    fn order(args: &str) -> Result<Order, Refusal> {
        Order::parse(&Query::parse(format!("upstream=u&{args}").as_bytes()).unwrap())
    }

    /// A choice by the text of a server.
    fn server(text: &str) -> Selector {
        Selector::Server(text.to_owned())
    }

    #[test]
    fn choices() {
        let table = [
            ("", Choice::None),
            ("server=", Choice::None),
            ("peer=", Choice::None),
            ("server=&id=1", Choice::Id(ServerId(1))),
            ("server=a:1", Choice::One(server("a:1"))),
            ("server=12", Choice::One(server("12"))),
            ("servers=a", Choice::Several(vec![server("a")])),
            ("servers=a,b:2", Choice::Several(vec![server("a"), server("b:2")])),
            ("peer=1", Choice::One(Selector::Position(1))),
            ("peer=007", Choice::One(Selector::Position(7))),
            ("peer=127.0.0.1:80", Choice::One(server("127.0.0.1:80"))),
            ("peer=-1", Choice::One(server("-1"))),
            ("id=42", Choice::Id(ServerId(42))),
        ];
        for (args, wanted) in table {
            assert_eq!(order(args).unwrap().choice, wanted, "{args}");
        }
    }

    #[test]
    fn changes() {
        let table = [
            ("server=a", None, vec![]),
            ("server=a&verbose=", None, vec![]),
            ("server=a&down=", Some(Admin::Down), vec![]),
            ("server=a&up", Some(Admin::Up), vec![]),
            ("server=a&drain=1", Some(Admin::Drain), vec![]),
            ("server=a&fail_timeout=1m&weight=2", None, vec![(Param::Weight, 2), (Param::FailTimeout, 60)]),
            (
                "server=a&max_conns=0&max_fails=0&down",
                Some(Admin::Down),
                vec![(Param::MaxConns, 0), (Param::MaxFails, 0)],
            ),
        ];
        for (args, admin, params) in table {
            assert_eq!(order(args).unwrap().change, Change { admin, params }, "{args}");
        }
    }

    #[test]
    fn notes_and_flags() {
        assert_eq!(order("note=a+b").unwrap().note.as_deref(), Some("a b"));
        assert_eq!(order("note=").unwrap().note, None);
        assert!(order("verbose=&backup=&ipv6=").unwrap().verbose);
    }

    #[test]
    fn refusals() {
        let table = [
            ("x=", 400, "unknown argument \"x\""),
            ("Server=a", 400, "unknown argument \"Server\""),
            ("add=&remove=", 400, "add and remove at once are not allowed"),
            ("add=&server=a", 501, "add: not yet supported"),
            ("remove=&server=a", 501, "remove: not yet supported"),
            ("stream=", 501, "stream: not yet supported"),
            ("down=&up=&server=a", 400, "down and up at once are not allowed"),
            ("up=&down=&server=a", 400, "down and up at once are not allowed"),
            ("drain=&down=&server=a", 400, "down and drain at once are not allowed"),
            ("drain=&up=&server=a", 400, "up and drain at once are not allowed"),
            ("down=0&server=a", 400, "invalid value \"0\" in \"down\""),
            ("add=no&server=a", 400, "invalid value \"no\" in \"add\""),
            ("down=", 400, "'server' argument required"),
            ("weight=1", 400, "'server' argument required"),
            ("server=&weight=1", 400, "'server' argument required"),
            ("weight=x&server=a", 400, "weight: not a number"),
            ("weight=0&server=a", 400, "invalid weight \"0\": use drain or down to stop new requests"),
            ("server=a&id=1", 400, "server and id at once are not allowed"),
            ("peer=0&server=a", 400, "server and peer at once are not allowed"),
            ("servers=a&peer=0", 400, "servers and peer at once are not allowed"),
            ("servers=", 400, "invalid value \"\" in \"servers\""),
            ("servers=a,,b", 400, "invalid value \"a,,b\" in \"servers\""),
            ("servers=a,b,a", 400, "duplicate server \"a\" in \"servers\""),
            ("id=", 400, "invalid value \"\" in \"id\""),
            ("id=a", 400, "invalid value \"a\" in \"id\""),
            ("id=%2B1", 400, "invalid value \"+1\" in \"id\""),
            ("id=99999999999999999999", 400, "invalid value \"99999999999999999999\" in \"id\""),
            ("peer=99999999999999999999", 400, "bad peer id"),
            ("server=a&down=&backup=", 400, "backup: only for a server that is added"),
        ];
        for (args, status, text) in table {
            let refusal = order(args).unwrap_err();
            assert_eq!((refusal.kind.status(), refusal.text.as_str()), (status, text), "{args}");
        }
        for query in ["", "upstream=", "server=a&down="] {
            let refusal = Order::parse(&Query::parse(query.as_bytes()).unwrap()).unwrap_err();
            assert_eq!(refusal, Refusal::argument("upstream required"), "{query}");
        }
    }
}
