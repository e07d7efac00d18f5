//! From a command to what is done to each server.

use crate::model::id::{Revision, ServerId, Slot, UpstreamIndex};
use crate::model::params::{PARAMS, Params};
use crate::model::snapshot::{Method, Peer};
use crate::model::state::Admin;

use super::access::{CommitError, Lookup, Upstreams};
use super::command::{Command, Selector};
use super::error::OpError;

/// How often a command is planned again when others were faster. Each time another change was made, so that a command
/// that loses this often has waited for that many others.
const ATTEMPTS: usize = 64;

/// Largest sum of weights under consistent hash: nginx makes 160 points of 16 bytes for each unit, in each worker,
/// which is 40 MB at this sum.
const CONSISTENT_WEIGHT_MAX: u64 = 16_384;

/// Largest length of a note, in bytes: a line's worth, since the store keeps it.
pub const NOTE_MAX: usize = 128;

/// What is asked of one server, and its parameters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Wish {
    /// Up, down or draining.
    pub admin: Admin,
    /// weight, max_conns, max_fails, fail_timeout.
    pub params: Params,
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
    /// Where it stood when the plan was made.
    pub slot: Slot,
    /// Text of the `server` directive.
    pub server: String,
    /// Before the change.
    pub from: Wish,
    /// After it.
    pub to: Wish,
    /// Whether it is brought up, which also forgets its failures.
    pub revive: bool,
    /// Whether its state was asked for, so that the client's note is the reason of it.
    pub restate: bool,
}

impl Entry {
    /// Whether anything is to be other than it is.
    pub fn is_change(&self) -> bool {
        self.from != self.to
    }

    /// What is to be other than it is.
    pub fn differences(&self) -> Vec<Difference> {
        let mut differences = Vec::new();
        let mut add = |what, from: String, to: String| {
            if from != to {
                differences.push(Difference { what, from, to });
            }
        };
        add("state", self.from.admin.as_str().to_owned(), self.to.admin.as_str().to_owned());
        for row in &PARAMS {
            add(row.name, self.from.params.get(row.param).to_string(), self.to.params.get(row.param).to_string());
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
    /// Who asks.
    pub client: String,
    /// The client's words.
    pub note: Option<String>,
}

impl Plan {
    /// Whether anything that the store keeps is to change.
    pub fn changes_anything(&self) -> bool {
        self.entries.iter().any(|entry| self.changes(entry))
    }

    /// Whether anything that the store keeps of this server is to change: a new note on the same state is a change.
    pub fn changes(&self, entry: &Entry) -> bool {
        entry.is_change() || (entry.restate && self.note.is_some())
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
}

/// Carries out a command: all of it, or nothing.
///
/// # Errors
///
/// Why nothing was changed.
pub fn execute(upstreams: &dyn Upstreams, command: &Command) -> Result<Outcome, OpError> {
    let upstream = upstreams
        .find(&command.upstream)
        .ok_or_else(|| OpError::UpstreamNotFound(command.upstream.clone()))?;
    for _ in 0..ATTEMPTS {
        let plan = plan(upstreams.lookup(upstream)?.as_ref(), command)?;
        match upstreams.commit(upstream, &plan) {
            Ok(revision) => return Ok(Outcome { upstream, revision, entries: plan.entries }),
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
    let mut entries: Vec<Entry> = Vec::new();
    for selector in &command.servers {
        let peers = lookup.select(selector);
        if peers.is_empty() {
            return Err(match selector {
                Selector::Position(position) => OpError::BadPosition(*position),
                _ => OpError::ServerNotFound(selector.text()),
            });
        }
        for peer in &peers {
            if !entries.iter().any(|entry| entry.slot == peer.slot) {
                entries.push(entry(peer, command)?);
            }
        }
    }
    let plan = Plan {
        revision: lookup.revision(),
        membership: lookup.membership(),
        entries,
        client: command.client.clone(),
        note: command.note.clone(),
    };
    check_weights(lookup, &plan)?;
    Ok(plan)
}

/// What the command makes of one peer.
fn entry(peer: &Peer, command: &Command) -> Result<Entry, OpError> {
    let from = Wish { admin: peer.admin, params: peer.params };
    let mut to = from;
    if let Some(admin) = command.change.admin {
        to.admin = admin;
    }
    for &(param, value) in &command.change.params {
        to.params.set(param, value);
    }
    Ok(Entry {
        id: peer.id.ok_or_else(|| OpError::ServerNotFound(peer.server.clone()))?,
        slot: peer.slot,
        server: peer.server.clone(),
        from,
        to,
        revive: command.change.admin == Some(Admin::Up),
        restate: command.change.admin.is_some(),
    })
}

/// Refuses weights that the method cannot take.
fn check_weights(lookup: &dyn Lookup, plan: &Plan) -> Result<(), OpError> {
    if plan.entries.iter().all(|entry| entry.from.params.weight == entry.to.params.weight) {
        return Ok(());
    }
    if !lookup.can_set_weight() {
        return Err(OpError::WeightNotYet(lookup.method()));
    }
    if lookup.method() == Method::HashConsistent {
        let total = plan.entries.iter().fold(lookup.total_weight(), |total, entry| {
            total.saturating_sub(entry.from.params.weight).saturating_add(entry.to.params.weight)
        });
        if total > CONSISTENT_WEIGHT_MAX {
            return Err(OpError::WeightTooLarge { total, max: CONSISTENT_WEIGHT_MAX });
        }
    }
    Ok(())
}
