//! Making a change.

use std::ptr::{self, NonNull};

use crate::model::id::{Group, Revision, ServerId};
use crate::model::server::{Server, Terms};
use crate::nginx::death;
use crate::nginx::time::now;
use crate::ops::{CommitError, Committed, Entry, OpError, Part, Plan};
use crate::store::commit::{Arrival, Change};
use crate::store::records::{self, Reason};
use crate::store::{self, Locked, PATIENCE, adopt::Claim};
use crate::zone::backend::Backend;
use crate::zone::prepared::Full;
use crate::zone::{self, Edits, Fate, NoSeat, Place, Prepared, Setting, Spot, Writing};

use super::catch_up::catch_up;
use super::lookup::know_peers;
use super::room;
use super::upstream::{Control, Stuck, Upstream};

/// Servers that were made for a plan before any lock is taken, and what the store has to know of them.
#[derive(Default)]
pub struct Made {
    /// What becomes of the peers that are there, and the new ones.
    edits: Edits,
    /// The ids of the servers whose peers are there, in the order of the edits.
    ids: Vec<ServerId>,
    /// The new servers, in the order of the plan: those with another address, then those that are added.
    names: Vec<(String, Vec<u8>)>,
}

/// The change of one upstream, while it is made.
pub struct Task<'a> {
    /// The upstream.
    upstream: &'a Upstream,
    /// What it is controlled through.
    control: &'a Control,
    /// What is to be done.
    plan: &'a Plan,
    /// What becomes of its peers.
    edits: Edits,
    /// The ids of its edits, as [`Made`] has them.
    ids: &'a [ServerId],
    /// The new servers, as [`Made`] has them.
    names: &'a [(String, Vec<u8>)],
    /// Records that get other wishes.
    changes: Vec<Change>,
    /// Records that leave.
    leaving: Vec<NonNull<records::Server>>,
    /// Records that are new, or of servers at another address.
    arriving: Vec<Arrival<'a>>,
    /// The locks of its peers.
    lists: Option<Writing>,
    /// Whether this process runs the newest configuration, whose peers the store knows.
    is_newest: bool,
    /// How many servers there will be.
    left: usize,
}

/// Carries out a plan, wholly or not at all. When it returns, the peers show it.
pub fn commit(upstream: &Upstream, control: &Control, plan: &Plan) -> Result<Committed, CommitError> {
    let _room = room::to_change(plan.len()).map_err(CommitError::Refused)?;
    // What left and is not used any more makes room.
    control.reap(PATIENCE);
    let mut made = Made::default();
    if let Err(full) = make(control, plan, &mut made, usize::MAX) {
        return Err(CommitError::Refused(zone_full(upstream, full.needed)));
    }
    let committed = commit_all(vec![Task::new(upstream, control, plan, &mut made)]);
    committed.map_err(|(_, error)| error)?.into_iter().next().ok_or(CommitError::Moved)
}

/// Carries out the plans of several upstreams, each of which is there once: all of them, or none. The error has the
/// place of the one that it is about.
///
/// Each upstream has a word of its own that publishes its change. If the process dies between two of them, the changes
/// before are made, and those after are not.
pub fn commit_all(mut tasks: Vec<Task<'_>>) -> Result<Vec<Committed>, (usize, CommitError)> {
    // All memory, of the heap and of the upstreams' zones, was taken before the locks: while they are held, nothing may
    // fail. All upstreams of a configuration have one store.
    let Some(store) = tasks.first().map(|task| task.control.store) else { return Ok(Vec::new()) };
    let mut done = Vec::with_capacity(tasks.len());

    death::may_come("prepared");
    let locked = store.lock_within(PATIENCE).map_err(Stuck::from);
    let mut locked = locked.map_err(|stuck| (0, CommitError::Refused(stuck.into())))?;
    // Who takes the locks of several upstreams has the store's, so that their order does not matter.
    let taken = tasks.iter_mut().enumerate().try_for_each(|(at, task)| {
        task.take(&mut locked).map_err(|error| (at, error, task.is_behind(&locked)))
    });
    if let Err((at, error, is_behind)) = taken {
        tasks.iter_mut().for_each(|task| task.give_back(&mut locked));
        drop(locked);
        if let (true, Some(task)) = (is_behind, tasks.get(at)) {
            catch_up(task.control, PATIENCE);
        }
        return Err((at, error));
    }
    death::may_come("seated");
    // From here on nothing can fail.
    done.extend(tasks.iter_mut().map(|task| task.make(&mut locked)));
    death::may_come("done");
    drop(locked);
    Ok(tasks.into_iter().zip(done).map(|(task, revision)| task.finish(revision)).collect())
}

impl<'a> Task<'a> {
    /// The change that a plan is, with what was made for it.
    pub fn new(upstream: &'a Upstream, control: &'a Control, plan: &'a Plan, made: &'a mut Made) -> Self {
        let moves = plan.entries.iter().filter(|entry| entry.readdress.is_some()).count();
        Self {
            upstream,
            control,
            plan,
            edits: std::mem::take(&mut made.edits),
            ids: &made.ids,
            names: &made.names,
            changes: Vec::with_capacity(plan.entries.len()),
            leaving: Vec::with_capacity(plan.removed.len() + moves),
            arriving: Vec::with_capacity(plan.added.len() + moves),
            lists: None,
            is_newest: false,
            left: 0,
        }
    }

    /// Whether the peers do not show what the store has.
    fn is_behind(&self, locked: &Locked) -> bool {
        self.control.applied() != locked.revision(self.control.record)
    }

    /// Takes what the change needs of the store, and the locks of the peers. What was taken before an error is to be
    /// given back.
    fn take(&mut self, locked: &mut Locked) -> Result<(), CommitError> {
        let (control, plan) = (self.control, self.plan);
        let moves = self.leaving.capacity() + self.arriving.capacity();
        if locked.is_closed() || (moves > 0 && !control.is_newest(locked)) {
            // Nobody would see the change, or it was planned for other servers than the new configuration has. By the
            // next attempt a worker of that answers.
            return Err(CommitError::Refused(OpError::Reloaded));
        }
        if locked.revision(control.record) != plan.revision.0 || self.is_behind(locked) {
            return Err(CommitError::Moved);
        }
        let reason = Reason::new(now().0, &plan.client, plan.note.as_deref());
        let mut names = self.names.iter();
        for entry in &plan.entries {
            let server = locked.server(control.record, entry.id.0).ok_or(CommitError::Moved)?;
            let reason = entry.restates().then_some(reason);
            // A worker of an older configuration knows the server as that had it: only what is asked for may change.
            let current = locked.wish(control.record, server).terms();
            let wanted = current.with(&entry.asked);
            if entry.readdress.is_some() {
                let (text, name) = names.next().ok_or(CommitError::Moved)?;
                let reason = reason.or_else(|| locked.reason(control.record, server));
                self.leaving.push(server);
                let claim = claim(entry.server.group, text, name, wanted);
                self.arriving.push(Arrival::new(claim, Some(server), reason));
            } else if wanted != current || (entry.restates() && plan.note.is_some()) {
                self.changes.push(Change::new(server, wanted, reason));
            }
        }
        for removal in &plan.removed {
            self.leaving.push(locked.server(control.record, removal.id.0).ok_or(CommitError::Moved)?);
        }
        for (new, (text, name)) in plan.added.iter().zip(names) {
            self.arriving.push(Arrival::new(claim(new.group, text, name, new.terms), None, Some(reason)));
        }

        let store_full = |full: store::Full| CommitError::Refused(OpError::StoreFull { needed: full.needed });
        locked.reserve(control.record, &mut self.changes, &mut self.arriving).map_err(store_full)?;
        death::may_come("reserved");
        let Some(lists) = control.zone.write() else {
            return Err(CommitError::Refused(OpError::Stuck));
        };
        let lists = self.lists.insert(lists);
        if control.zone.membership() != plan.membership {
            // nginx resolved a name since.
            return Err(CommitError::Moved);
        }
        self.is_newest = know_peers(control, locked, lists);
        if self.is_newest && !find(control, locked, self.ids, &mut self.edits) {
            return Err(CommitError::Moved);
        }
        // SAFETY: the places are those of records whose peers the store knows for the present count of changes.
        let seated = unsafe { lists.seat(plan.membership, &mut self.edits) };
        for (arrival, place) in self.arriving.iter_mut().zip(self.edits.arriving()) {
            arrival.peer = place.map_or(ptr::null_mut(), Place::as_ptr);
        }
        self.left = lists.sums().number as usize + plan.added.len() - plan.removed.len();
        seated.map_err(|none| CommitError::Refused(refusal(self.upstream, none)))
    }

    /// Gives back what was taken.
    fn give_back(&mut self, locked: &mut Locked) {
        self.lists = None;
        locked.give_back(&mut self.changes, &mut self.arriving);
    }

    /// Makes the change, for which all was taken. Returns the new revision.
    fn make(&mut self, locked: &mut Locked) -> u64 {
        let control = self.control;
        let revision = if self.changes.is_empty() && self.leaving.is_empty() && self.arriving.is_empty() {
            locked.revision(control.record)
        } else {
            locked.publish(control.record, &mut self.changes, &self.leaving, &mut self.arriving)
        };
        death::may_come("published");
        let Some(lists) = self.lists.take() else { return revision };
        if self.is_newest {
            let membership = self.plan.membership;
            // SAFETY: the places are those of records whose peers the store knows, which it does for the present count
            // of changes; that is the one of the plan, and stands still while the locks are held.
            let applied = unsafe { lists.apply(control.abilities, membership, &mut self.edits) };
            if let Some(membership) = applied {
                locked.confirm_peers(control.record, membership);
                locked.set_membership(control.record, membership);
            }
        } else {
            set_by_name(control, locked, lists, self.plan);
        }
        death::may_come("applied");
        control.set_applied(locked, revision);
        control.zone.reap();
        revision
    }

    /// What was done, when the locks are gone.
    fn finish(self, revision: u64) -> Committed {
        let arrived = self.arriving.iter().filter(|arrival| arrival.heir_of.is_none());
        Committed {
            revision: Revision(revision),
            added: arrived.map(|arrival| ServerId(arrival.id)).collect(),
            left: self.left,
        }
    }
}

/// Sets the peers of a plan in a process of an older configuration: its peers are its own, and only set.
fn set_by_name(control: &Control, locked: &Locked, lists: Writing, plan: &Plan) {
    let mut finder = locked.finder(control.record);
    lists.apply_by_name(control.abilities, |group, server, name| {
        let id = finder.find(group, server, name)?.id();
        plan.entries.iter().find(|entry| entry.id.0 == id).and_then(setting)
    });
}

/// What the peer of an entry is to be, if anything else than it is.
fn setting(entry: &Entry) -> Option<Setting> {
    let (revive, terms) = (entry.revives(), entry.to);
    (revive || entry.is_change()).then_some(Setting { terms, revive })
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

/// Makes more of a part ready, at most for `limit` new servers. True when all of it is.
pub fn prepare(
    upstream: &Upstream,
    control: &Control,
    part: &mut Part,
    limit: usize,
) -> Result<bool, OpError> {
    let _room = room::to_change(part.plan.len())?;
    let mut ready = part.ready.take().and_then(|ready| ready.downcast::<Made>().ok()).unwrap_or_else(|| {
        // What left and is not used any more makes room.
        control.reap(PATIENCE);
        Box::default()
    });
    let is_all = make(control, &part.plan, &mut ready, limit).map_err(|full| {
        // So much is needed for each of the servers, about.
        zone_full(upstream, full.needed.saturating_mul(part.plan.added.len()))
    })?;
    part.ready = Some(ready);
    Ok(is_all)
}

/// Why a change is not made: there is no place for a server.
fn refusal(upstream: &Upstream, none: NoSeat) -> OpError {
    match none {
        NoSeat::Capacity(group, capacity) => OpError::NoSlot { group, capacity },
        NoSeat::Busy => OpError::SlotsBusy,
        NoSeat::Memory(needed) => zone_full(upstream, needed),
    }
}

/// The refusal of what finds no room.
fn zone_full(upstream: &Upstream, needed: usize) -> OpError {
    OpError::ZoneFull { zone: upstream.zone.clone().unwrap_or_default(), needed }
}

/// Makes the servers of a plan, at most `limit` new ones. True when all are made.
fn make(control: &Control, plan: &Plan, made: &mut Made, limit: usize) -> Result<bool, Full> {
    let Made { edits, ids, names } = made;
    let mut prepare = |new: &Server| -> Result<Prepared, Full> {
        let prepared = control.zone.prepare(new, control.abilities)?;
        names.push((new.text.clone(), zone::Current::name(&prepared)));
        Ok(prepared)
    };
    if edits.at.is_empty() && edits.append.is_empty() {
        for entry in &plan.entries {
            let spot = Spot::unknown(entry.server.group);
            if let Some(moved) = entry.moved() {
                let prepared = prepare(&moved)?;
                ids.push(entry.id);
                edits.at.push((spot, Fate::Replace(prepared)));
            } else if let Some(setting) = setting(entry) {
                ids.push(entry.id);
                edits.at.push((spot, Fate::Set(setting)));
            }
        }
        for removal in &plan.removed {
            ids.push(removal.id);
            edits.at.push((Spot::unknown(removal.server.group), Fate::Leave));
        }
    }
    for new in plan.added.iter().skip(edits.append.len()).take(limit) {
        let prepared = prepare(new)?;
        edits.append.push((new.group, prepared));
    }
    if edits.append.len() < plan.added.len() {
        return Ok(false);
    }
    if plan.added.iter().any(|new| new.group.is_backup()) {
        edits.backups = control.zone.prepare_backups()?;
    }
    edits.make_room();
    Ok(true)
}

/// A new server, or one with another address, as the store is asked for its record.
fn claim<'a>(group: Group, server: &'a str, name: &'a [u8], terms: Terms) -> Claim<'a> {
    Claim { group, server: server.as_bytes(), name, terms, managed: false }
}
