//! From a command to what is done to each server.

use std::fmt::Display;

use crate::model::address::Address;
use crate::model::id::{Group, Revision, ServerId, UpstreamIndex};
use crate::model::params::{PARAMS, Params};
use crate::model::snapshot::Peer;
use crate::model::state::Admin;

use super::access::{CommitError, Committed, Lookup, Upstreams};
use super::command::{Action, Addition, Change, Command, Selector};
use super::error::OpError;
use super::rules::{check_addition, check_guard, check_weights, id, readdress, select, select_one};

/// How often a command is planned again when others were faster. Each time another change was made, so that a command
/// that loses this often has waited for that many others.
pub(super) const ATTEMPTS: usize = 64;

/// Largest length of a note, in bytes: a line's worth, since the store keeps it.
pub const NOTE_MAX: usize = 128;

/// Words for servers that a command may have without a look whether there is memory for all of the upstream: each is
/// about a server or two, but for a host.
const FEW: usize = 64;

/// What is asked of one server, and its parameters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Wish {
    /// Up, down or draining.
    pub admin: Admin,
    /// weight, max_conns, max_fails, fail_timeout.
    pub params: Params,
}

impl Wish {
    /// The same, with what a change asks for.
    pub fn with(mut self, change: &Change) -> Self {
        if let Some(admin) = change.admin {
            self.admin = admin;
        }
        for &(param, value) in &change.params {
            self.params.set(param, value);
        }
        self
    }
}

/// One thing that changes, for the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Difference {
    /// `state`, or the name of a parameter.
    pub what: &'static str,
    /// What it was.
    pub from: String,
    /// What it is to be.
    pub to: String,
}

/// What becomes of one server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Identity.
    pub id: ServerId,
    /// Its list.
    pub group: Group,
    /// Text of the `server` directive.
    pub server: String,
    /// Before the change.
    pub from: Wish,
    /// After it.
    pub to: Wish,
    /// What was asked for: nothing else is to change, whatever it is by then.
    pub asked: Change,
    /// Its new address, and the text of it; none if it stays.
    pub readdress: Option<NewAddress>,
}

/// Another address of a server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewAddress {
    /// The address.
    pub address: Address,
    /// What it was, as nginx writes it.
    pub from: String,
}

/// A server that is to leave.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Removal {
    /// Identity.
    pub id: ServerId,
    /// Its list.
    pub group: Group,
    /// What was wanted of it.
    pub admin: Admin,
    /// Text of the server.
    pub server: String,
    /// Its address.
    pub name: String,
    /// Requests that it served when the plan was made.
    pub active: u64,
}

impl Entry {
    /// Whether it is brought up, which also forgets its failures.
    pub fn revives(&self) -> bool {
        self.asked.admin == Some(Admin::Up)
    }

    /// Whether its state was asked for, so that the client and the note are the reason of it.
    pub fn restates(&self) -> bool {
        self.asked.admin.is_some()
    }

    /// Whether anything is to be other than it is.
    pub fn is_change(&self) -> bool {
        self.from != self.to || self.readdress.is_some()
    }

    /// What is to be other than it is.
    pub fn differences(&self) -> Vec<Difference> {
        let mut differences = Vec::new();
        let mut add = |what, from: &dyn Display, to: &dyn Display| {
            differences.push(Difference { what, from: from.to_string(), to: to.to_string() });
        };
        if self.from.admin != self.to.admin {
            add("state", &self.from.admin.as_str(), &self.to.admin.as_str());
        }
        if let Some(new) = self.readdress.as_ref().filter(|new| new.address.to_string() != new.from) {
            add("address", &new.from, &new.address);
        }
        for row in &PARAMS {
            let (from, to) = (self.from.params.get(row.param), self.to.params.get(row.param));
            if from != to {
                add(row.name, &from, &to);
            }
        }
        differences
    }
}

/// What a command comes to. Nothing was changed yet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plan {
    /// The change of the upstream that it was made for.
    pub revision: Revision,
    /// nginx's count of changes to the lists that it was made for.
    pub membership: u64,
    /// The servers, each once, in nginx's order.
    pub entries: Vec<Entry>,
    /// The servers that leave, in nginx's order.
    pub removed: Vec<Removal>,
    /// The servers that are new; each becomes the last of its list.
    pub added: Vec<Addition>,
    /// Who asks.
    pub client: String,
    /// The client's words.
    pub note: Option<String>,
}

impl Plan {
    /// To how many servers something is done.
    pub fn len(&self) -> usize {
        self.entries.len() + self.removed.len() + self.added.len()
    }

    /// Whether nothing is to be done.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// What was done.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// The upstream.
    pub upstream: UpstreamIndex,
    /// Its number of changes now.
    pub revision: Revision,
    /// The servers that were chosen, and what changed.
    pub entries: Vec<Entry>,
    /// The servers that left.
    pub removed: Vec<Removal>,
    /// The servers that are new, with their ids.
    pub added: Vec<(ServerId, Addition)>,
    /// How many servers there are now.
    pub left: usize,
}

/// Carries out a command: all of it, or nothing.
///
/// # Errors
///
/// Why nothing was changed.
pub fn execute(upstreams: &dyn Upstreams, command: &Command) -> Result<Outcome, OpError> {
    execute_if(upstreams, command, |_, _| Ok(()))
}

/// The same, if what the command comes to passes another check as well: with what is known of the upstream at that very
/// moment.
///
/// # Errors
///
/// Why nothing was changed.
pub fn execute_if(
    upstreams: &dyn Upstreams,
    command: &Command,
    check: impl Fn(&dyn Lookup, &Plan) -> Result<(), OpError>,
) -> Result<Outcome, OpError> {
    let upstream = upstreams
        .find(&command.upstream)
        .ok_or_else(|| OpError::UpstreamNotFound(command.upstream.clone()))?;
    if command.servers.len() > FEW || command.servers.iter().any(|it| matches!(it, Selector::Host(_))) {
        upstreams.room(upstream)?;
    }
    for _ in 0..ATTEMPTS {
        let lookup = upstreams.lookup(upstream)?;
        let plan = plan(lookup.as_ref(), command)?;
        check(lookup.as_ref(), &plan)?;
        match upstreams.commit(upstream, &plan) {
            Ok(Committed { revision, added, left }) => {
                let Plan { entries, removed, added: additions, .. } = plan;
                let added = added.into_iter().zip(additions).collect();
                return Ok(Outcome { upstream, revision, entries, removed, added, left });
            }
            Err(CommitError::Moved) => {}
            Err(CommitError::Refused(error)) => return Err(error),
        }
    }
    Err(OpError::Busy)
}

/// Turns a command into a plan.
///
/// # Errors
///
/// Why it cannot be done.
pub fn plan(lookup: &dyn Lookup, command: &Command) -> Result<Plan, OpError> {
    if let Some(note) = &command.note
        && note.len() > NOTE_MAX
    {
        return Err(OpError::NoteTooLong { len: note.len(), max: NOTE_MAX });
    }
    let mut plan = Plan {
        revision: lookup.revision(),
        membership: lookup.membership(),
        entries: Vec::new(),
        removed: Vec::new(),
        added: Vec::new(),
        client: command.client.clone(),
        note: command.note.clone(),
    };
    match &command.action {
        Action::Set(change) => {
            let mut peers: Vec<Peer> = Vec::new();
            for selector in &command.servers {
                for peer in select(lookup, selector)? {
                    id(&peer)?;
                    if !peers.iter().any(|chosen| chosen.id == peer.id) {
                        peers.push(peer);
                    }
                }
            }
            lookup.place(&mut peers);
            for peer in &peers {
                plan.entries.push(entry(peer, change, None)?);
            }
        }
        Action::Add(addition) => {
            check_addition(lookup, addition)?;
            plan.added.push(addition.clone());
        }
        Action::Remove => {
            let peer = select_one(lookup, &command.servers)?;
            plan.removed.push(Removal {
                id: id(&peer)?,
                group: peer.slot.group,
                admin: peer.admin,
                server: String::from(&peer.server),
                name: String::from(&peer.name),
                active: peer.active,
            });
        }
        Action::Readdress { address, change } => {
            let peer = select_one(lookup, &command.servers)?;
            plan.entries.push(entry(&peer, change, readdress(lookup, &peer, address)?)?);
        }
    }
    check_weights(lookup, &plan)?;
    if !command.force {
        check_guard(lookup, &plan)?;
    }
    Ok(plan)
}

/// What the command makes of one peer.
fn entry(peer: &Peer, change: &Change, readdress: Option<NewAddress>) -> Result<Entry, OpError> {
    let from = Wish { admin: peer.admin, params: peer.params };
    let to = from.with(change);
    Ok(Entry {
        id: id(peer)?,
        group: peer.slot.group,
        server: String::from(&peer.server),
        from,
        to,
        asked: change.clone(),
        readdress,
    })
}
