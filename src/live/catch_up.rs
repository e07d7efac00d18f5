//! Making up for a change that this process's peers do not show: a worker committed it and died, or it was committed by
//! a process of another configuration, or nginx resolved a name in the middle of it.
//!
//! A process of the newest configuration gives its peers what the records have. One of an older configuration has other
//! servers by right, and goes with the changes that were made since: servers that were added come, those that were
//! removed leave, and parameters are set.

use std::sync::atomic::Ordering;
use std::time::Duration;

use crate::model::address::Address;
use crate::model::id::Group;
use crate::model::server::Server;
use crate::store::{Locked, records};
use crate::zone::{self, Edits, Fate, NoSeat, Prepared, Row, Setting, Spot};

use super::room;
use super::upstream::Control;

/// Attempts to find store and peers unchanged from one look to the next. If they fail, the next request tries again.
const ATTEMPTS: usize = 8;

/// Missing servers that the first attempt has room for; the next has room for all.
const MISSING: usize = 16;

/// Longest server text and address of a server that was added at run time: each is an address.
const TEXT_MAX: usize = 128;

/// A text, copied under a lock.
type Text = ([u8; TEXT_MAX], usize);

/// A server that the store has and the peers do not.
struct Missing {
    /// Which list it is for.
    group: Group,
    /// Text of the server.
    server: Text,
    /// Its address.
    name: Text,
    /// What is wanted of it.
    wish: records::Wish,
}

/// What differs between the records and the peers.
struct Difference {
    /// The revision that it is true for.
    revision: u64,
    /// The servers that are missing, as many as there was room for.
    missing: Vec<Missing>,
    /// How many there are.
    needed: usize,
    /// The peers that leave.
    leaving: Vec<Spot>,
}

/// Applies what the store has and the peers do not show, unless the store's lock is not to be had within `limit`.
pub fn catch_up(control: &Control, limit: Duration) {
    // Who makes a change has the lock until the peers of that process show it.
    if !control.pulse().differs() || control.store.lock_within(limit).is_err() {
        return;
    }
    let mut room = MISSING;
    for _ in 0..ATTEMPTS {
        if !control.pulse().differs() {
            return;
        }
        // Without memory the next request tries again.
        let Ok(_memory) = room::to_look(&control.zone) else { return };
        if try_catch_up(control, limit, &mut room) {
            return;
        }
    }
}

/// One attempt, with room for so many missing servers. False if store or peers changed meanwhile, or if more are missing.
fn try_catch_up(control: &Control, limit: Duration, room: &mut usize) -> bool {
    // With stuck locks there is nothing to be done.
    let Some(copy) = control.zone.copy() else { return true };
    control.reap(limit);
    let Some(difference) = compare(control, &copy, limit, *room) else { return true };
    if difference.needed > *room {
        *room = difference.needed;
        return false;
    }
    let mut edits = Edits::default();
    for missing in &difference.missing {
        // A zone that is full now was not when the change was made; what fits is applied.
        edits.append.extend(prepare(control, missing).map(|prepared| (missing.group, prepared)));
    }
    // A process of an older configuration has a zone of another size: what left is to receive nothing in any case.
    if control.is_old.get() || edits.append.len() == difference.missing.len() {
        edits.at = difference.leaving.iter().map(|spot| (*spot, Fate::Leave)).collect();
    }
    if edits.append.iter().any(|(group, _)| group.is_backup()) {
        edits.backups = control.zone.prepare_backups().ok().flatten();
    }

    edits.make_room();

    let Ok(mut locked) = control.store.lock_within(limit) else { return true };
    if locked.revision(control.record) != difference.revision {
        return false;
    }
    let Some(lists) = control.zone.write() else { return true };
    // What has a place is applied.
    // SAFETY: the places are those of the copy, and the count of changes is that of the copy.
    let seated = unsafe { lists.seat(copy.membership, &mut edits) };
    // Peers that nginx made since are still to be adopted: that sets the count itself.
    let adopted = control.is_newest(&mut locked) && locked.membership(control.record) >= copy.membership;
    // SAFETY: likewise.
    let applied = unsafe { lists.apply(control.abilities, copy.membership, &mut edits) };
    let Some(membership) = applied else { return false };
    if adopted {
        locked.set_membership(control.record, membership);
    }
    if control.extra().told.load(Ordering::Relaxed) == copy.membership {
        control.extra().told.store(membership, Ordering::Relaxed);
    }
    apply_wishes(control, &locked, difference.revision, control.applied());
    if seated == Err(NoSeat::Busy) {
        // The next request tries again: by then a place may be idle.
        return true;
    }
    control.set_applied(&locked, difference.revision);
    control.zone.reap();
    true
}

/// Compares. None without the store's lock, or without memory.
fn compare(control: &Control, copy: &zone::Copy, limit: Duration, room: usize) -> Option<Difference> {
    let mut found = vec![false; copy.rows.len()];
    let mut missing = Vec::new();
    // Without memory the peers stay as they are, and the next request tries again.
    missing.try_reserve_exact(room).ok()?;
    let mut needed = 0;
    let rows = copy.rows.iter().map(|row| (row.slot.group, copy.bytes(&row.server), copy.bytes(&row.name)));

    let mut locked = control.store.lock_within(limit).ok()?;
    let revision = locked.revision(control.record);
    let (is_old, since) = (!control.is_newest(&mut locked), control.applied());
    locked.compare(control.record, rows, is_old, &mut found, |record| {
        // What the new configuration has is its own, and so are backups where this one has no list for them.
        let comes = record.came_after(since) && (control.has_backups || !record.group().is_backup());
        if is_old && !comes {
            return;
        }
        needed += 1;
        if missing.len() < room {
            let (server, name) = (text(record.server()), text(record.name()));
            missing.push(Missing { group: record.group(), server, name, wish: record.wish(revision) });
        }
    });
    let gone = is_old.then(|| locked.gone_since(control.record, control.extra().seen.get()));
    drop(locked);

    let strangers = copy.rows.iter().zip(&found).filter(|(row, found)| !**found && !row.managed);
    let leaving =
        strangers.filter(|(row, _)| gone.as_ref().is_none_or(|gone| gone.has(copy.bytes(&row.name))));
    let spot = |row: &Row| Spot { peer: Some(row.place), ..Spot::unknown(row.slot.group) };
    let leaving = leaving.map(|(row, _)| spot(row)).collect();
    Some(Difference { revision, missing, needed, leaving })
}

/// A copy of a text; none was made longer than the buffer.
fn text(from: &[u8]) -> Text {
    let mut bytes = [0; TEXT_MAX];
    let mut len = 0;
    for (to, from) in bytes.iter_mut().zip(from) {
        *to = *from;
        len += 1;
    }
    (bytes, len)
}

/// Makes the peer of a missing server.
fn prepare(control: &Control, missing: &Missing) -> Option<Prepared> {
    let read = |(bytes, len): &Text| String::from_utf8(bytes.get(..*len)?.to_vec()).ok();
    let (text, address) = (read(&missing.server)?, Address::parse(&read(&missing.name)?).ok()?);
    let new = Server { text, address, group: missing.group, terms: missing.wish.terms() };
    control.zone.prepare(&new, control.abilities).ok()
}

/// Sets the parameters of the peers for which something was wanted after revision `since`.
pub(super) fn apply_wishes(control: &Control, locked: &Locked, revision: u64, since: u64) {
    if !locked.wants_since(control.record, since) {
        return;
    }
    let Some(lists) = control.zone.write() else { return };
    let mut finder = locked.finder(control.record);
    let is_old = control.is_old.get();
    lists.apply_by_name(control.abilities, |group, server, name| {
        let found = finder.find(group, server, name);
        // Another configuration may have called the same server otherwise.
        let found = if is_old { found.or_else(|| finder.find_address(name)) } else { found };
        let wish = found?.wish(revision);
        (wish.revision > since).then(|| Setting { terms: wish.terms(), revive: false })
    });
}

/// In a process of an older configuration: tells the peers that nginx made since what is wanted of them.
pub(super) fn tell_new_peers(control: &Control, limit: Duration) {
    let Ok(locked) = control.store.lock_within(limit) else { return };
    // Another weight may raise the count once more: then the next request does this again, and nothing changes.
    let membership = control.zone.membership();
    apply_wishes(control, &locked, control.applied(), 0);
    control.extra().told.store(membership, Ordering::Relaxed);
}
