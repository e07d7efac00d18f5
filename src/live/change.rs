//! Making a change, and making up for one.

use crate::model::id::{Revision, Slot};
use crate::model::state::Admin;
use crate::nginx::time::now;
use crate::ops::{CommitError, OpError, Plan};
use crate::store::commit::Change;
use crate::store::{Locked, records};
use crate::zone::Setting;

use super::upstream::Control;

/// Carries out a plan, wholly or not at all. When it returns, the peers show it.
pub fn commit(control: &Control, plan: &Plan) -> Result<Revision, CommitError> {
    // All memory of the heap is taken before the lock: while it is held, an allocation that fails would end the worker.
    let settings: Vec<(Slot, Setting)> = plan
        .entries
        .iter()
        .filter(|entry| entry.revive || entry.is_change())
        .map(|entry| {
            let setting = Setting { admin: entry.to.admin, params: entry.to.params, revive: entry.revive };
            (entry.slot, setting)
        })
        .collect();
    let mut changes = Vec::with_capacity(plan.entries.len());
    let reason = records::Reason::new(now().0, &plan.client, plan.note.as_deref());

    let mut locked = control.store.lock();
    let before = locked.revision(control.record);
    if before != plan.revision.0 {
        return Err(CommitError::Moved);
    }
    if control.applied(&locked) != before {
        apply_difference(control, &mut locked);
        return Err(CommitError::Moved);
    }
    for entry in plan.entries.iter().filter(|entry| plan.changes(entry)) {
        let server = locked.server(control.record, entry.id.0).ok_or(CommitError::Moved)?;
        let reason = entry.restate.then_some(reason);
        changes.push(Change::new(server, entry.to.admin, entry.to.params, reason));
    }
    let revision = if changes.is_empty() {
        before
    } else {
        locked
            .commit(control.record, &mut changes)
            .map_err(|full| CommitError::Refused(OpError::StoreFull { needed: full.needed }))?
    };
    if control.zone.apply(control.abilities, plan.membership, &settings) {
        control.set_applied(&locked, revision);
    } else {
        // nginx resolved a name meanwhile, so that the peers may stand elsewhere.
        apply_difference(control, &mut locked);
    }
    Ok(Revision(revision))
}

/// Applies what the store has and the zone does not: what a worker committed before it died, or what a process of
/// another configuration committed.
pub fn catch_up(control: &Control) {
    if control.pulse().differs() {
        let mut locked = control.store.lock();
        apply_difference(control, &mut locked);
    }
}

/// The same, with the lock held.
fn apply_difference(control: &Control, locked: &mut Locked) {
    let applied = control.applied(locked);
    let revision = locked.revision(control.record);
    let mut finder = locked.finder(control.record);
    control.zone.apply_by_name(control.abilities, |slot, server, name| {
        let wish = finder.find(slot.group, server, name)?.wish(revision);
        (wish.revision > applied).then(|| Setting {
            admin: wish.admin(),
            params: wish.params(),
            revive: wish.admin() == Admin::Up,
        })
    });
    control.set_applied(locked, revision);
}
