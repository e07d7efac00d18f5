//! What the arguments of [`super::dynamic`] ask for.

use crate::model::id::{Group, ServerId};
use crate::model::params::PARAMS;
use crate::model::query::Query;
use crate::model::server::Change;
use crate::ops::{Action, Selector};

use super::super::accept::FORMAT;
use super::super::arguments::{flag, invalid, only};
use super::super::error::{Kind, Refusal};
use super::super::settings::Dialect;
use super::words::{addition, both, change, given, number, peer, several};

/// The arguments of all programs, beside the parameters of servers.
const KNOWN: [&str; 18] = [
    "upstream", "verbose", "brief", "add", "remove", "backup", "server", "servers", "peer", "id", "up",
    "down", "drain", "stream", "ipv6", "force", "note", FORMAT,
];

/// Those of `upstream_conf`.
const CONF_KNOWN: [&str; 16] = [
    "upstream",
    "add",
    "remove",
    "backup",
    "server",
    "id",
    "up",
    "down",
    "drain",
    "stream",
    "service",
    "route",
    "slow_start",
    "force",
    "note",
    FORMAT,
];

/// The arguments that choose servers.
const SELECTORS: [&str; 4] = ["server", "servers", "peer", "id"];

/// What is asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Order {
    /// Name of the upstream, or of its zone.
    pub upstream: String,
    /// Whether a listing shows the parameters.
    pub verbose: bool,
    /// Whether the reply to a change shows no servers but those that it was about.
    pub brief: bool,
    /// The servers; there are some if they are to change or to leave.
    pub choice: Choice,
    /// What is to be done; none to list servers.
    pub action: Option<Action>,
    /// Whether the guard of the upstream is set aside.
    pub force: bool,
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
    pub fn parse(query: &Query, dialect: Dialect) -> Result<Self, Refusal> {
        let known: &[&str] = match dialect {
            Dialect::Any => &KNOWN,
            Dialect::UpstreamConf => &CONF_KNOWN,
        };
        let params = PARAMS.iter().map(|row| row.name);
        only(query, &known.iter().copied().chain(params).collect::<Vec<_>>())?;
        let upstream = given(query, "upstream").ok_or_else(|| Refusal::argument("upstream required"))?;
        let verbose = flag(query, "verbose")?;
        let brief = flag(query, "brief")?;
        refuse_what_comes_later(query)?;
        let change = change(query)?;
        let verbose = verbose || !change.is_empty();
        let (choice, action) = action(query, change, dialect)?;
        if action.is_none()
            && let Some(name) = ["note", "force", "brief"].iter().find(|name| query.has(name))
        {
            return Err(Refusal::argument(format!("{name}: nothing is to be changed")));
        }
        Ok(Self {
            upstream: upstream.to_owned(),
            verbose,
            brief,
            choice,
            action,
            force: flag(query, "force")?,
            note: given(query, "note").map(str::to_owned),
        })
    }
}

/// What is to be done, and to whom.
fn action(query: &Query, change: Change, dialect: Dialect) -> Result<(Choice, Option<Action>), Refusal> {
    let (add, remove, backup) = (flag(query, "add")?, flag(query, "remove")?, flag(query, "backup")?);
    if add && remove {
        return Err(both("add", "remove"));
    }
    if add {
        if let Some(name) = SELECTORS.iter().find(|name| **name != "server" && is_given(query, name)) {
            return Err(both("add", name));
        }
        let group = if backup { Group::Backup } else { Group::Primary };
        return Ok((Choice::None, Some(Action::Add(addition(query, &change, group)?))));
    }
    // With an id, a server is not whom to change but what it is to be.
    let address = given(query, "server").filter(|_| !remove && query.has("id"));
    let choice = choice(query, address.is_some())?;
    let action = match address {
        _ if remove => Some(Action::Remove),
        Some(address) => Some(Action::Readdress { address: address.to_owned(), change }),
        None if change.is_empty() => None,
        None => Some(Action::Set(change)),
    };
    if dialect == Dialect::UpstreamConf
        && !matches!(choice, Choice::Id(_))
        && is_about_one(query, action.as_ref())
    {
        return Err(Refusal::argument("missing \"id\" argument"));
    }
    if action.is_none() {
        return Ok((choice, action));
    }
    if choice == Choice::None {
        return Err(Refusal::argument("'server' argument required"));
    }
    if backup {
        // It cannot make a backup of a primary, and must not seem to.
        return Err(Refusal::argument("backup: only for a server that is added"));
    }
    if remove {
        let other = PARAMS.iter().map(|row| row.name).chain(["servers", "up", "down", "drain"]);
        if let Some(name) = other.into_iter().find(|name| query.has(name)) {
            return Err(both("remove", name));
        }
    }
    Ok((choice, action))
}

/// Whether a request that chooses no id is about one server all the same.
fn is_about_one(query: &Query, action: Option<&Action>) -> bool {
    action.is_some() || is_given(query, "server")
}

/// Refuses what other modules do with these arguments and this one does not, rather than not doing it in silence.
fn refuse_what_comes_later(query: &Query) -> Result<(), Refusal> {
    // Only says which addresses of a name are added, so that there is nothing to refuse.
    flag(query, "ipv6")?;
    let slow_start = given(query, "slow_start").is_some_and(|time| !matches!(time, "0" | "0s"));
    for (name, is_set) in [
        ("stream", flag(query, "stream")?),
        ("service", given(query, "service").is_some()),
        ("route", given(query, "route").is_some()),
        ("slow_start", slow_start),
    ] {
        if is_set {
            return Err(Refusal::new(Kind::NotSupported, format!("{name}: not yet supported")));
        }
    }
    Ok(())
}

/// Whether an argument chooses servers. An empty `server=` or `peer=` chooses none, as it always did.
fn is_given(query: &Query, name: &str) -> bool {
    query.get(name).is_some_and(|value| !value.is_empty() || matches!(name, "servers" | "id"))
}

/// The servers that are chosen; not by `server=` if that is what one of them is to be.
fn choice(query: &Query, is_address: bool) -> Result<Choice, Refusal> {
    let mut chosen =
        SELECTORS.into_iter().filter(|name| is_given(query, name) && !(is_address && *name == "server"));
    let Some(name) = chosen.next() else {
        return Ok(Choice::None);
    };
    if let Some(other) = chosen.next() {
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

#[cfg(test)]
mod tests;
