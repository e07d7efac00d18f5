//! Making a change.

use crate::model::id::{Group, Revision, ServerId, Slot};
use crate::nginx::death;
use crate::nginx::time::now;
use crate::ops::plan::Wish;
use crate::ops::{Addition, CommitError, Committed, OpError, Plan};
use crate::store::commit::{Arrival, Change};
use crate::store::records::Reason;
use crate::store::{self, adopt::Claim};
use crate::zone::backend::Backend;
use crate::zone::prepared::Full;
use crate::zone::{self, Edits, Fate, NewPeer, NoSeat, Prepared, Setting};

use super::catch_up::catch_up;
use super::upstream::{Control, Upstream};

/// Peers made for a plan before any lock is taken, and what the store has to know of them.
struct Made {
    /// What becomes of the peers that are there, and the new ones.
    edits: Edits,
    /// The new servers, in the order of the plan: those with another address, then those that are added.
    names: Vec<(String, Vec<u8>)>,
}

/// Carries out a plan, wholly or not at all. When it returns, the peers show it.
pub fn commit(upstream: &Upstream, control: &Control, plan: &Plan) -> Result<Committed, CommitError> {
    // All memory, of the heap and of the upstream's zone, is taken before the locks: while they are held, nothing may
    // fail.
    let zone_full = |full: Full| {
        let zone = upstream.zone.clone().unwrap_or_default();
        CommitError::Refused(OpError::ZoneFull { zone, needed: full.needed })
    };
    // What left and is not used any more makes room.
    control.reap();
    let mut made = make(control, plan).map_err(zone_full)?;
    let reason = Reason::new(now().0, &plan.client, plan.note.as_deref());
    let moves = plan.entries.iter().filter(|entry| entry.readdress.is_some()).count();
    let mut changes = Vec::with_capacity(plan.entries.len());
    let mut leaving = Vec::with_capacity(plan.removed.len() + moves);
    let mut arriving = Vec::with_capacity(plan.added.len() + moves);

    death::may_come("prepared");
    let mut locked = control.store.lock();
    let moves = moves + plan.removed.len() + plan.added.len();
    if locked.is_closed() || (moves > 0 && locked.generation() != control.generation) {
        // Nobody would see the change, or it was planned for other servers than the new configuration has. By the next
        // attempt a worker of that answers.
        return Err(CommitError::Refused(OpError::Busy));
    }
    let before = locked.revision(control.record);
    if before != plan.revision.0 {
        return Err(CommitError::Moved);
    }
    if control.applied() != before {
        drop(locked);
        catch_up(control);
        return Err(CommitError::Moved);
    }
    let mut names = made.names.iter();
    for entry in &plan.entries {
        let server = locked.server(control.record, entry.id.0).ok_or(CommitError::Moved)?;
        let reason = entry.restates().then_some(reason);
        // A worker of an older configuration knows the server as that had it: only what is asked for may change.
        let current = locked.wish(control.record, server);
        let current = Wish { admin: current.admin(), params: current.params() };
        let wanted = current.with(&entry.asked);
        if entry.readdress.is_some() {
            let (text, name) = names.next().ok_or(CommitError::Moved)?;
            let reason = reason.or_else(|| locked.reason(control.record, server));
            leaving.push(server);
            arriving.push(Arrival::new(claim(entry.slot.group, text, name, wanted), Some(server), reason));
        } else if wanted != current || (entry.restates() && plan.note.is_some()) {
            changes.push(Change::new(server, wanted.admin, wanted.params, reason));
        }
    }
    for removal in &plan.removed {
        leaving.push(locked.server(control.record, removal.id.0).ok_or(CommitError::Moved)?);
    }
    for (addition, (text, name)) in plan.added.iter().zip(names) {
        let wanted = Wish { admin: addition.admin, params: addition.params };
        arriving.push(Arrival::new(claim(addition.group, text, name, wanted), None, Some(reason)));
    }

    let store_full =
        |full: store::lock::Full| CommitError::Refused(OpError::StoreFull { needed: full.needed });
    locked.reserve(&mut changes, &mut arriving).map_err(store_full)?;
    death::may_come("reserved");
    let Some(lists) = control.zone.write() else {
        locked.give_back(&mut changes, &mut arriving);
        return Err(CommitError::Refused(OpError::Stuck));
    };
    let seated = if control.zone.membership() == plan.membership {
        control.zone.seat(&lists, &mut made.edits).map_err(|none| refusal(upstream, none))
    } else {
        // nginx resolved a name meanwhile, so that the peers may stand elsewhere.
        Err(CommitError::Moved)
    };
    if let Err(refused) = seated {
        drop(lists);
        locked.give_back(&mut changes, &mut arriving);
        return Err(refused);
    }
    death::may_come("seated");
    // From here on nothing can fail.
    let revision = if changes.is_empty() && leaving.is_empty() && arriving.is_empty() {
        before
    } else {
        locked.publish(control.record, &mut changes, &leaving, &mut arriving)
    };
    death::may_come("published");
    let applied = control.zone.apply(lists, control.abilities, plan.membership, &mut made.edits);
    death::may_come("applied");
    if let Some(membership) = applied {
        if locked.generation() == control.generation {
            locked.set_membership(control.record, membership);
        }
        control.set_applied(&locked, revision);
        control.zone.reap();
    }
    death::may_come("done");
    drop(locked);
    let arrived = arriving.iter().filter(|arrival| arrival.heir_of.is_none());
    Ok(Committed {
        revision: Revision(revision),
        added: arrived.map(|arrival| ServerId(arrival.id)).collect(),
    })
}

/// Why a change is not made: there is no place for a server.
fn refusal(upstream: &Upstream, none: NoSeat) -> CommitError {
    CommitError::Refused(match none {
        NoSeat::Capacity(group, capacity) => OpError::NoSlot { group, capacity },
        NoSeat::Busy => OpError::SlotsBusy,
        NoSeat::Memory(needed) => {
            OpError::ZoneFull { zone: upstream.zone.clone().unwrap_or_default(), needed }
        }
    })
}

/// Makes the peers of a plan.
fn make(control: &Control, plan: &Plan) -> Result<Made, Full> {
    let mut edits = Edits::default();
    let mut names = Vec::new();
    let mut prepare = |new: NewPeer<'_>| -> Result<Prepared, Full> {
        let prepared = control.zone.prepare(&new, control.abilities)?;
        names.push((new.server.to_owned(), zone::Current::name(&prepared)));
        Ok(prepared)
    };
    for entry in &plan.entries {
        if let Some(new) = &entry.readdress {
            let text = new.address.to_string();
            let Wish { admin, params } = entry.to;
            let prepared = prepare(NewPeer { server: &text, address: &new.address, params, admin })?;
            edits.at.push((entry.slot, Fate::Replace(prepared)));
        } else if entry.revives() || entry.is_change() {
            let Wish { admin, params } = entry.to;
            edits.at.push((entry.slot, Fate::Set(Setting { admin, params, revive: entry.revives() })));
        }
    }
    for removal in &plan.removed {
        edits.at.push((removal.slot, Fate::Leave));
    }
    edits.at.sort_by_key(|(slot, _): &(Slot, Fate)| *slot);
    for addition in &plan.added {
        let Addition { server, address, group, params, admin } = addition;
        let prepared = prepare(NewPeer { server, address, params: *params, admin: *admin })?;
        edits.append.push((*group, prepared));
    }
    if plan.added.iter().any(|addition| addition.group.is_backup()) {
        edits.backups = control.zone.prepare_backups()?;
    }
    edits.make_room();
    Ok(Made { edits, names })
}

/// A new server, or one with another address, as the store is asked for its record.
fn claim<'a>(group: Group, server: &'a str, name: &'a [u8], wanted: Wish) -> Claim<'a> {
    let Wish { admin, params } = wanted;
    Claim { group, server: server.as_bytes(), name, admin, params, managed: false }
}
