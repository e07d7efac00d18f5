//! From a command to what is done to each server.

use crate::model::snapshot::Peer;

use super::access::{CommitError, Committed, Lookup, Upstreams};
use super::command::{Action, Change, Command, Selector};
use super::error::OpError;
use super::plan::{Entry, NOTE_MAX, NewAddress, Outcome, Plan, Removal, Wish};
use super::rules::{
    check_addition, check_guard, check_weights, id, placeholder, readdress, select, select_one,
};

/// How often a command is planned again when others were faster. Each time another change was made, so that a command
/// that loses this often has waited for that many others.
pub(super) const ATTEMPTS: usize = 64;

/// Words for servers that a command may have without a look whether there is memory for all of the upstream: each is
/// about a server or two, but for a host.
const FEW: usize = 64;

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
    let upstream = upstreams.find(&command.upstream)?;
    if command.servers.len() > FEW || command.servers.iter().any(|it| matches!(it, Selector::Host(_))) {
        upstreams.room(upstream)?;
    }
    for _ in 0..ATTEMPTS {
        let lookup = upstreams.lookup(upstream)?;
        let plan = plan(lookup.as_ref(), command)?;
        check(lookup.as_ref(), &plan)?;
        match upstreams.commit(upstream, &plan) {
            Ok(Committed { revision, added, left }) => {
                let Plan { entries, mut removed, added: additions, .. } = plan;
                if !additions.is_empty() {
                    // What stood for no server was none.
                    removed.clear();
                }
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
            if let Some(peer) = placeholder(lookup)? {
                plan.removed.push(removal(&peer)?);
            }
        }
        Action::Remove => {
            let peer = select_one(lookup, &command.servers)?;
            plan.removed.push(removal(&peer)?);
        }
        Action::Readdress { address, change } => {
            let peer = select_one(lookup, &command.servers)?;
            plan.entries.push(entry(&peer, change, readdress(lookup, &peer, address)?)?);
        }
    }
    check_weights(lookup, &plan)?;
    // An addition leaves no server less.
    if !command.force && plan.added.is_empty() {
        check_guard(lookup, &plan)?;
    }
    Ok(plan)
}

/// A peer that leaves.
pub(super) fn removal(peer: &Peer) -> Result<Removal, OpError> {
    Ok(Removal {
        id: id(peer)?,
        group: peer.slot.group,
        admin: peer.admin,
        server: String::from(&peer.server),
        name: String::from(&peer.name),
        active: peer.active,
    })
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
