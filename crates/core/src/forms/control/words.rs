//! Words that several forms of `upstream_control` have in common.

use std::collections::HashSet;
use std::str::FromStr;

use crate::model::address::{Address, folded};
use crate::model::id::Group;
use crate::model::params::{PARAMS, Param};
use crate::model::query::{Query, quoted};
use crate::model::server::{Change, Server, Terms};
use crate::model::state::Admin;
use crate::ops::Selector;

use super::super::arguments::{flag, invalid};
use super::super::error::{Kind, Refusal};

/// The flags that set the state of servers, each pair of which excludes the other.
const STATES: [(&str, Admin); 3] = [("down", Admin::Down), ("up", Admin::Up), ("drain", Admin::Drain)];

/// The value of an argument, unless it is empty.
pub fn given<'a>(query: &'a Query, name: &str) -> Option<&'a str> {
    query.get(name).filter(|value| !value.is_empty())
}

/// What is to become of servers.
///
/// # Errors
///
/// The first thing that is wrong with it.
pub fn change(query: &Query) -> Result<Change, Refusal> {
    Ok(Change { admin: admin(query)?, params: params(query)? })
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

/// The server that is to be, with the defaults of the `server` directive where nothing is said.
///
/// # Errors
///
/// If its address is missing or none.
pub fn addition(query: &Query, change: &Change, group: Group) -> Result<Server, Refusal> {
    let text = given(query, "server").ok_or_else(|| Refusal::argument("'server' argument required"))?;
    let address = Address::parse(text).map_err(|error| Refusal::argument(error.to_string()))?;
    Ok(Server { text: text.to_owned(), address, group, terms: Terms::default().with(change) })
}

/// Digits as a number. No sign, which `parse` would take.
pub fn number<T: FromStr>(text: &str) -> Option<T> {
    text.bytes().all(|byte| byte.is_ascii_digit()).then(|| text.parse().ok()).flatten()
}

/// The position that `peer=` means if it is made of digits, else the server of that text.
///
/// # Errors
///
/// If it is a number that no list is long enough for.
pub fn peer(value: &str) -> Result<Selector, Refusal> {
    if !value.bytes().all(|byte| byte.is_ascii_digit()) {
        return Ok(Selector::Server(value.to_owned()));
    }
    // More digits than any list is long.
    let too_large =
        || Refusal::new(Kind::ServerNotFound, format!("bad peer id: {}", quoted(value.as_bytes())));
    number(value).map(Selector::Position).ok_or_else(too_large)
}

/// The servers of a list with commas.
///
/// # Errors
///
/// If one is empty, or there twice.
pub fn several(value: &str) -> Result<Vec<Selector>, Refusal> {
    let mut seen = HashSet::new();
    value
        .split(',')
        .map(|server| match server {
            "" => Err(invalid(value, "servers")),
            server if !seen.insert(folded(server)) => Err(Refusal::argument(format!(
                "duplicate server {} in \"servers\"",
                quoted(server.as_bytes())
            ))),
            server => Ok(Selector::Server(server.to_owned())),
        })
        .collect()
}

/// The refusal of two arguments that exclude each other.
pub fn both(one: &str, other: &str) -> Refusal {
    Refusal::argument(format!("{one} and {other} at once are not allowed"))
}
