//! Making up for a change that this process's peers do not show: a worker committed it and died, or it was committed by
//! a process of another configuration, or nginx resolved a name in the middle of it.

use crate::model::address::Address;
use crate::model::id::Group;
use crate::store::{Locked, records};
use crate::zone::{self, Edits, Fate, NewPeer, NoSeat, Prepared, Row, Setting, Spot};

use super::room;
use super::upstream::Control;

/// Attempts to find store and peers unchanged from one look to the next. If they fail, the next request tries again.
const ATTEMPTS: usize = 8;

/// Missing servers that one attempt adds; the next adds more.
const MISSING_MAX: usize = 16;

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
    /// The servers that are missing.
    missing: Vec<Missing>,
    /// Whether there are more.
    more: bool,
    /// The peers that leave.
    leaving: Vec<Spot>,
}

/// Applies what the store has and the peers do not show.
pub fn catch_up(control: &Control) {
    for _ in 0..ATTEMPTS {
        if !control.pulse().differs() {
            return;
        }
        // Without memory the next request tries again.
        let Ok(_room) = room::to_look(&control.zone) else { return };
        if try_catch_up(control) {
            return;
        }
    }
}

/// One attempt. False if store or peers changed meanwhile, or if more is missing.
fn try_catch_up(control: &Control) -> bool {
    // With stuck locks there is nothing to be done.
    let Some(copy) = control.zone.copy() else { return true };
    control.reap();
    let difference = compare(control, &copy);
    let mut edits = Edits::default();
    for missing in &difference.missing {
        // A zone that is full now was not when the change was made; what fits is applied.
        edits.append.extend(prepare(control, missing).map(|prepared| (missing.group, prepared)));
    }
    if edits.append.len() == difference.missing.len() {
        edits.at = difference.leaving.iter().map(|spot| (*spot, Fate::Leave)).collect();
    }
    if edits.append.iter().any(|(group, _)| group.is_backup()) {
        edits.backups = control.zone.prepare_backups().ok().flatten();
    }

    edits.make_room();

    let mut locked = control.store.lock();
    if locked.revision(control.record) != difference.revision {
        return false;
    }
    let Some(lists) = control.zone.write() else { return true };
    // What has a place is applied.
    let seated = control.zone.seat(&lists, &mut edits);
    // Peers that nginx made since are still to be adopted: that sets the count itself.
    let adopted =
        locked.generation() == control.generation && locked.membership(control.record) >= copy.membership;
    // SAFETY: the places are those of the copy, and the count of changes is that of the copy.
    let applied = unsafe { control.zone.apply(lists, control.abilities, copy.membership, &mut edits) };
    let Some(membership) = applied else { return false };
    if adopted {
        locked.set_membership(control.record, membership);
    }
    if difference.more {
        return false;
    }
    if seated == Err(NoSeat::Busy) {
        // The next request tries again: by then a place may be idle.
        return true;
    }
    apply_wishes(control, &locked, difference.revision, control.applied());
    control.set_applied(&locked, difference.revision);
    control.zone.reap();
    true
}

/// Compares. Processes of an older configuration have other peers by right: they change parameters only.
fn compare(control: &Control, copy: &zone::Copy) -> Difference {
    let mut found = vec![false; copy.rows.len()];
    let mut missing = Vec::with_capacity(MISSING_MAX);
    let mut more = false;
    let rows = copy.rows.iter().map(|row| (row.slot.group, copy.bytes(&row.server), copy.bytes(&row.name)));

    let mut locked = control.store.lock();
    let revision = locked.revision(control.record);
    if locked.generation() != control.generation {
        return Difference { revision, missing, more, leaving: Vec::new() };
    }
    locked.compare(control.record, rows, &mut found, |record| {
        if missing.len() < missing.capacity() {
            let (server, name) = (text(record.server()), text(record.name()));
            missing.push(Missing { group: record.group(), server, name, wish: record.wish(revision) });
        } else {
            more = true;
        }
    });
    drop(locked);

    let strangers = copy.rows.iter().zip(&found).filter(|(row, found)| !**found && !row.managed);
    let spot = |row: &Row| Spot { peer: Some(row.place), ..Spot::unknown(row.slot.group) };
    let leaving = strangers.map(|(row, _)| spot(row)).collect();
    Difference { revision, missing, more, leaving }
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
    let (server, address) = (read(&missing.server)?, Address::parse(&read(&missing.name)?).ok()?);
    let (params, admin) = (missing.wish.params(), missing.wish.admin());
    let new = NewPeer { server: &server, address: &address, params, admin };
    control.zone.prepare(&new, control.abilities).ok()
}

/// Sets the parameters of the peers for which something was wanted after revision `since`.
pub(super) fn apply_wishes(control: &Control, locked: &Locked, revision: u64, since: u64) {
    if !locked.wants_since(control.record, since) {
        return;
    }
    let Some(lists) = control.zone.write() else { return };
    let mut finder = locked.finder(control.record);
    control.zone.apply_by_name(lists, control.abilities, |group, server, name| {
        let wish = finder.find(group, server, name)?.wish(revision);
        (wish.revision > since).then(|| Setting { admin: wish.admin(), params: wish.params(), revive: false })
    });
}
