//! From a command to what is done to each server.

use crate::model::snapshot::Peer;

use super::access::{CommitError, Committed, Lookup, Upstreams};
use super::command::{Action, Command, Selector};
use super::error::OpError;
use super::plan::{Outcome, Plan};
use super::rules::{
    Tally, check_addition, check_note, entry, id, placeholder, readdress, removal, select, select_one,
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
    let upstream = command.upstream;
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
                return Ok(Outcome { revision, entries, removed, added, left });
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
    check_note(command.note.as_deref())?;
    let Command { client, note, .. } = command;
    let mut plan = Plan::new(lookup.revision(), lookup.membership(), client, note.as_deref());
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
                plan.entries.push(entry(peer, change.clone(), None)?);
            }
        }
        Action::Add(server) => {
            check_addition(lookup, server)?;
            plan.added.push(server.clone());
            if let Some(peer) = placeholder(lookup)? {
                plan.removed.push(removal(&peer)?);
            }
        }
        Action::Remove => plan.removed.push(removal(&select_one(lookup, &command.servers)?)?),
        Action::Readdress { address, change } => {
            let peer = select_one(lookup, &command.servers)?;
            let address = readdress(lookup, &peer, address)?;
            plan.entries.push(entry(&peer, change.clone(), address)?);
        }
    }
    let mut tally = Tally::of(lookup);
    plan.entries.iter().for_each(|entry| tally.set(&entry.server.terms, &entry.to));
    plan.removed.iter().for_each(|removal| tally.remove(&removal.server.terms));
    plan.added.iter().for_each(|server| tally.add(&server.terms));
    // An addition leaves no server less.
    let is_guarded = !command.force && plan.added.is_empty();
    tally.check(lookup.method(), lookup.guard().filter(|_| is_guarded))?;
    Ok(plan)
}
