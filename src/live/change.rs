//! Making a change.

use std::ptr;

use crate::model::id::{Group, Revision, ServerId};
use crate::nginx::time::now;
use crate::ops::plan::Wish;
use crate::ops::{Addition, CommitError, Committed, Entry, OpError, Plan};
use crate::store::commit::{Arrival, Change};
use crate::store::records::Reason;
use crate::store::{self, Locked, adopt::Claim};
use crate::zone::backend::Backend;
use crate::zone::prepared::Full;
use crate::zone::{self, Edits, Fate, Lists, NewPeer, NoSeat, Place, Prepared, Setting, Spot};

use super::catch_up::catch_up;
use super::lookup::know_peers;
use super::upstream::{Control, Upstream};

/// Peers made for a plan before any lock is taken, and what the store has to know of them.
struct Made {
    /// What becomes of the peers that are there, and the new ones.
    edits: Edits,
    /// The ids of the servers whose peers are there, in the order of the edits.
    ids: Vec<ServerId>,
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
    let Made { mut edits, ids, names } = make(control, plan).map_err(zone_full)?;
    let reason = Reason::new(now().0, &plan.client, plan.note.as_deref());
    let moves = plan.entries.iter().filter(|entry| entry.readdress.is_some()).count();
    let mut changes = Vec::with_capacity(plan.entries.len());
    let mut leaving = Vec::with_capacity(plan.removed.len() + moves);
    let mut arriving = Vec::with_capacity(plan.added.len() + moves);

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
    let mut names = names.iter();
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
            arriving.push(Arrival::new(claim(entry.group, text, name, wanted), Some(server), reason));
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
    locked.reserve(control.record, &mut changes, &mut arriving).map_err(store_full)?;
    let Some(lists) = control.zone.write() else {
        locked.give_back(&mut changes, &mut arriving);
        return Err(CommitError::Refused(OpError::Stuck));
    };
    let is_newest = know_peers(control, &mut locked, &lists);
    if is_newest
        && (control.zone.membership() != plan.membership || !find(control, &locked, &ids, &mut edits))
    {
        // nginx resolved a name since.
        drop(lists);
        locked.give_back(&mut changes, &mut arriving);
        return Err(CommitError::Moved);
    }
    if let Err(none) = control.zone.seat(&lists, &mut edits) {
        drop(lists);
        locked.give_back(&mut changes, &mut arriving);
        return Err(CommitError::Refused(match none {
            NoSeat::Capacity(capacity) => OpError::NoSlot { capacity },
            NoSeat::Busy => OpError::SlotsBusy,
            NoSeat::Memory(needed) => {
                OpError::ZoneFull { zone: upstream.zone.clone().unwrap_or_default(), needed }
            }
        }));
    }
    for (arrival, place) in arriving.iter_mut().zip(edits.arriving()) {
        arrival.peer = place.map_or(ptr::null_mut(), Place::as_ptr);
    }
    let left = control.zone.sums(&lists).number as usize + plan.added.len() - plan.removed.len();
    // From here on nothing can fail.
    let revision = if changes.is_empty() && leaving.is_empty() && arriving.is_empty() {
        before
    } else {
        locked.publish(control.record, &mut changes, &leaving, &mut arriving)
    };
    if is_newest {
        // SAFETY: the places are those of records whose peers the store knows, which it does for the present count of
        // changes; that is the one of the plan, and stands still while the locks are held.
        let applied = unsafe { control.zone.apply(lists, control.abilities, plan.membership, &mut edits) };
        if let Some(membership) = applied {
            locked.confirm_peers(control.record, membership);
            locked.set_membership(control.record, membership);
        }
    } else {
        set_by_name(control, &locked, lists, plan);
    }
    control.set_applied(&locked, revision);
    control.zone.reap();
    drop(locked);
    let arrived = arriving.iter().filter(|arrival| arrival.heir_of.is_none());
    Ok(Committed {
        revision: Revision(revision),
        added: arrived.map(|arrival| ServerId(arrival.id)).collect(),
        left,
    })
}

/// Sets the peers of a plan in a process of an older configuration: its peers are its own, and only set.
fn set_by_name(control: &Control, locked: &Locked, lists: Lists, plan: &Plan) {
    let mut finder = locked.finder(control.record);
    control.zone.apply_by_name(lists, control.abilities, |group, server, name| {
        let id = finder.find(group, server, name)?.id();
        plan.entries.iter().find(|entry| entry.id.0 == id).and_then(setting)
    });
}

/// What the peer of an entry is to be, if anything else than it is.
fn setting(entry: &Entry) -> Option<Setting> {
    let (revive, Wish { admin, params }) = (entry.revives(), entry.to);
    (revive || entry.is_change()).then_some(Setting { admin, params, revive })
}

/// Finds the peers of the servers that the edits are about; false if one has none.
fn find(control: &Control, locked: &Locked, ids: &[ServerId], edits: &mut Edits) -> bool {
    let last = |group| Place::from_ptr(locked.last_peer(control.record, group));
    edits.last = [last(Group::Primary), last(Group::Backup)];
    ids.iter().zip(&mut edits.at).all(|(id, (spot, _))| {
        let Some(server) = locked.server(control.record, id.0) else { return false };
        spot.peer = Place::from_ptr(locked.peer(server));
        spot.before = Place::from_ptr(locked.peer_before(server));
        spot.peer.is_some()
    })
}

/// Makes the peers of a plan.
fn make(control: &Control, plan: &Plan) -> Result<Made, Full> {
    let mut edits = Edits::default();
    let (mut ids, mut names) = (Vec::new(), Vec::new());
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
            ids.push(entry.id);
            edits.at.push((Spot::unknown(entry.group), Fate::Replace(prepared)));
        } else if let Some(setting) = setting(entry) {
            ids.push(entry.id);
            edits.at.push((Spot::unknown(entry.group), Fate::Set(setting)));
        }
    }
    for removal in &plan.removed {
        ids.push(removal.id);
        edits.at.push((Spot::unknown(removal.group), Fate::Leave));
    }
    for addition in &plan.added {
        let Addition { server, address, group, params, admin } = addition;
        let prepared = prepare(NewPeer { server, address, params: *params, admin: *admin })?;
        edits.append.push((*group, prepared));
    }
    if plan.added.iter().any(|addition| addition.group.is_backup()) {
        edits.backups = control.zone.prepare_backups()?;
    }
    edits.make_room();
    Ok(Made { edits, ids, names })
}

/// A new server, or one with another address, as the store is asked for its record.
fn claim<'a>(group: Group, server: &'a str, name: &'a [u8], wanted: Wish) -> Claim<'a> {
    let Wish { admin, params } = wanted;
    Claim { group, server: server.as_bytes(), name, admin, params, managed: false }
}
