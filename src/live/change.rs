//! Making a change.

use std::ptr::NonNull;

use crate::model::id::{Group, Revision, ServerId, Slot};
use crate::nginx::time::now;
use crate::ops::plan::Wish;
use crate::ops::{Addition, CommitError, Committed, OpError, Part, Plan};
use crate::store::commit::{Arrival, Change};
use crate::store::records::{Reason, Server};
use crate::store::{self, Locked, adopt::Claim};
use crate::zone::backend::Backend;
use crate::zone::lock::Lists;
use crate::zone::prepared::Full;
use crate::zone::{self, Edits, Fate, NewPeer, NoSeat, Prepared, Setting};

use super::catch_up::catch_up;
use super::upstream::{Control, Upstream};

/// Servers that were made for a plan before any lock is taken, and what the store has to know of them.
#[derive(Default)]
pub struct Made {
    /// What becomes of the peers that are there, and the new ones.
    edits: Edits,
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
    /// The new servers, as [`Made`] has them.
    names: &'a [(String, Vec<u8>)],
    /// Records that get other wishes.
    changes: Vec<Change>,
    /// Records that leave.
    leaving: Vec<NonNull<Server>>,
    /// Records that are new, or of servers at another address.
    arriving: Vec<Arrival<'a>>,
    /// The locks of its peers.
    lists: Option<Lists>,
}

/// Carries out a plan, wholly or not at all. When it returns, the peers show it.
pub fn commit(upstream: &Upstream, control: &Control, plan: &Plan) -> Result<Committed, CommitError> {
    // What left and is not used any more makes room.
    control.reap();
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

    let mut locked = store.lock();
    // Who takes the locks of several upstreams has the store's, so that their order does not matter.
    let taken = tasks.iter_mut().enumerate().try_for_each(|(at, task)| {
        task.take(&mut locked).map_err(|error| (at, error, task.is_behind(&locked)))
    });
    if let Err((at, error, is_behind)) = taken {
        tasks.iter_mut().for_each(|task| task.give_back(&mut locked));
        drop(locked);
        if let (true, Some(task)) = (is_behind, tasks.get(at)) {
            catch_up(task.control);
        }
        return Err((at, error));
    }
    // From here on nothing can fail.
    done.extend(tasks.iter_mut().map(|task| task.make(&mut locked)));
    drop(locked);
    Ok(tasks.into_iter().zip(done).map(|(task, (revision, shown))| task.finish(revision, shown)).collect())
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
            names: &made.names,
            changes: Vec::with_capacity(plan.entries.len()),
            leaving: Vec::with_capacity(plan.removed.len() + moves),
            arriving: Vec::with_capacity(plan.added.len() + moves),
            lists: None,
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
        if locked.is_closed() || (moves > 0 && locked.generation() != control.generation) {
            // Nobody would see the change, or it was planned for other servers than the new configuration has. By the
            // next attempt a worker of that answers.
            return Err(CommitError::Refused(OpError::Busy));
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
            let current = locked.wish(control.record, server);
            let current = Wish { admin: current.admin(), params: current.params() };
            let wanted = current.with(&entry.asked);
            if entry.readdress.is_some() {
                let (text, name) = names.next().ok_or(CommitError::Moved)?;
                let reason = reason.or_else(|| locked.reason(control.record, server));
                self.leaving.push(server);
                let claim = claim(entry.slot.group, text, name, wanted);
                self.arriving.push(Arrival::new(claim, Some(server), reason));
            } else if wanted != current || (entry.restates() && plan.note.is_some()) {
                self.changes.push(Change::new(server, wanted.admin, wanted.params, reason));
            }
        }
        for removal in &plan.removed {
            self.leaving.push(locked.server(control.record, removal.id.0).ok_or(CommitError::Moved)?);
        }
        for (addition, (text, name)) in plan.added.iter().zip(names) {
            let wanted = Wish { admin: addition.admin, params: addition.params };
            self.arriving.push(Arrival::new(claim(addition.group, text, name, wanted), None, Some(reason)));
        }

        let store_full =
            |full: store::lock::Full| CommitError::Refused(OpError::StoreFull { needed: full.needed });
        locked.reserve(&mut self.changes, &mut self.arriving).map_err(store_full)?;
        let Some(lists) = control.zone.write() else {
            return Err(CommitError::Refused(OpError::Stuck));
        };
        let seated = control.zone.seat(&lists, &mut self.edits);
        self.lists = Some(lists);
        seated.map_err(|none| {
            CommitError::Refused(match none {
                NoSeat::Capacity(capacity) => OpError::NoSlot { capacity },
                NoSeat::Busy => OpError::SlotsBusy,
                NoSeat::Memory(needed) => zone_full(self.upstream, needed),
            })
        })
    }

    /// Gives back what was taken.
    fn give_back(&mut self, locked: &mut Locked) {
        self.lists = None;
        locked.give_back(&mut self.changes, &mut self.arriving);
    }

    /// Makes the change, for which all was taken. Returns the new revision, and whether the peers show it.
    fn make(&mut self, locked: &mut Locked) -> (u64, bool) {
        let control = self.control;
        let revision = if self.changes.is_empty() && self.leaving.is_empty() && self.arriving.is_empty() {
            locked.revision(control.record)
        } else {
            locked.publish(control.record, &mut self.changes, &self.leaving, &mut self.arriving)
        };
        let apply =
            |lists| control.zone.apply(lists, control.abilities, self.plan.membership, &mut self.edits);
        let Some(membership) = self.lists.take().and_then(apply) else { return (revision, false) };
        if locked.generation() == control.generation {
            locked.set_membership(control.record, membership);
        }
        control.set_applied(locked, revision);
        control.zone.reap();
        (revision, true)
    }

    /// What was done, when the locks are gone.
    fn finish(self, revision: u64, shown: bool) -> Committed {
        if !shown {
            // nginx resolved a name meanwhile, so that the peers may stand elsewhere.
            catch_up(self.control);
        }
        let arrived = self.arriving.iter().filter(|arrival| arrival.heir_of.is_none());
        Committed {
            revision: Revision(revision),
            added: arrived.map(|arrival| ServerId(arrival.id)).collect(),
        }
    }
}

/// Makes more of a part ready, at most for `limit` new servers. True when all of it is.
pub fn prepare(
    upstream: &Upstream,
    control: &Control,
    part: &mut Part,
    limit: usize,
) -> Result<bool, OpError> {
    let mut ready = part.ready.take().and_then(|ready| ready.downcast::<Made>().ok()).unwrap_or_else(|| {
        // What left and is not used any more makes room.
        control.reap();
        Box::default()
    });
    let is_all = make(control, &part.plan, &mut ready, limit).map_err(|full| {
        // So much is needed for each of the servers, about.
        zone_full(upstream, full.needed.saturating_mul(part.plan.added.len()))
    })?;
    part.ready = Some(ready);
    Ok(is_all)
}

/// The refusal of what finds no room.
fn zone_full(upstream: &Upstream, needed: usize) -> OpError {
    OpError::ZoneFull { zone: upstream.zone.clone().unwrap_or_default(), needed }
}

/// Makes the servers of a plan, at most `limit` new ones. True when all are made.
fn make(control: &Control, plan: &Plan, made: &mut Made, limit: usize) -> Result<bool, Full> {
    let Made { edits, names } = made;
    let mut prepare = |new: NewPeer<'_>| -> Result<Prepared, Full> {
        let prepared = control.zone.prepare(&new, control.abilities)?;
        names.push((new.server.to_owned(), zone::Current::name(&prepared)));
        Ok(prepared)
    };
    if edits.at.is_empty() && edits.append.is_empty() {
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
    }
    for addition in plan.added.iter().skip(edits.append.len()).take(limit) {
        let Addition { server, address, group, params, admin } = addition;
        let prepared = prepare(NewPeer { server, address, params: *params, admin: *admin })?;
        edits.append.push((*group, prepared));
    }
    if edits.append.len() < plan.added.len() {
        return Ok(false);
    }
    if plan.added.iter().any(|addition| addition.group.is_backup()) {
        edits.backups = control.zone.prepare_backups()?;
    }
    edits.make_room();
    Ok(true)
}

/// A new server, or one with another address, as the store is asked for its record.
fn claim<'a>(group: Group, server: &'a str, name: &'a [u8], wanted: Wish) -> Claim<'a> {
    let Wish { admin, params } = wanted;
    Claim { group, server: server.as_bytes(), name, admin, params, managed: false }
}
