//! Peers that come and go: linked and unlinked under the locks.

use crate::model::id::Group;

use super::super::edits::{Edits, Fate, Touched};
use super::super::lock::Writing;
use super::super::nginx_peers::RawPeer;
use super::super::peers::{Link, ListMut, Peer, PeerMut};
use super::super::place::Place;
use super::super::setting::{Abilities, set};
use super::prepared::{Prepared, PreparedList};
use super::zombies;

/// Makes the edits of one list.
///
/// # Safety
///
/// The places in the edits are those of linked peers, and what was seated was seated under these locks.
pub(super) unsafe fn edit_list(
    lists: &Writing,
    group: Group,
    list: ListMut<'_>,
    abilities: Abilities,
    edits: &mut Edits<Prepared, PreparedList>,
    touched: &mut Touched,
) {
    // A peer that leaves goes on to exist as a zombie until the locks are given back, so that the places in the edits can
    // be looked at; `near` always belongs to the list or to the peer before the one that left.
    let mut near = list.first();
    for (spot, fate) in edits.at.iter_mut().filter(|(spot, _)| spot.group == group) {
        // SAFETY: see above.
        let (Some(peer), before) = (unsafe { (peer_at(spot.peer), peer_at(spot.before)) }) else { continue };
        if let Fate::Set(setting) = fate {
            touched.weights |= set(list, peer, abilities, setting);
            continue;
        }
        let Some(link) = link_to(list, peer, before, near) else { continue };
        near = link;
        if let Fate::Replace(prepared) = fate {
            prepared.inherit(peer);
            // SAFETY: see above.
            let Some(new) = (unsafe { prepared.take(lists) }) else { continue };
            link.unlink();
            link.insert(new);
            count_in(list, *new);
        } else {
            link.unlink();
        }
        bury(lists, group, list, peer);
        touched.members = true;
    }
    let [primaries, backups] = edits.last;
    // SAFETY: see above.
    let last = unsafe { peer_at(if group.is_backup() { backups } else { primaries }) };
    let mut appended = edits.append.iter_mut().filter(|(of, _)| *of == group).peekable();
    if appended.peek().is_none() {
        return;
    }
    let mut link = last.filter(|last| !is_zombie(*last)).map_or(list.first(), PeerMut::link).end();
    for (_, prepared) in appended {
        // SAFETY: see above.
        if let Some(new) = unsafe { prepared.take(lists) } {
            link.insert(new);
            link = new.link();
            count_in(list, *new);
            touched.members = true;
        }
    }
}

/// The peer at a place.
///
/// # Safety
///
/// Its list has the write lock for `'a`, and the place is that of a linked peer, or of one that left under this lock.
unsafe fn peer_at<'a>(place: Option<Place>) -> Option<PeerMut<'a>> {
    // SAFETY: see above.
    place.map(|place| unsafe { PeerMut::new(place.0) })
}

/// Whether a peer left.
fn is_zombie(peer: PeerMut<'_>) -> bool {
    // SAFETY: the peer stays while its lock is held.
    unsafe { RawPeer::zombie_raw(peer.raw().as_ptr()) != 0 }
}

/// Where the pointer to a peer is: behind `before` if that is the one before it, else behind one that is looked for, first
/// from `near` on, which is where the last one was found.
fn link_to<'a>(
    list: ListMut<'a>,
    peer: PeerMut<'a>,
    before: Option<PeerMut<'a>>,
    near: Link<'a>,
) -> Option<Link<'a>> {
    let behind = before.filter(|before| !is_zombie(*before)).map(PeerMut::link);
    if let Some(link) = behind.filter(|link| link.get() == Some(peer)) {
        return Some(link);
    }
    let is_it = |found| found == peer;
    near.find(is_it).or_else(|| list.first().find(is_it))
}

/// Counts a peer out of its list and keeps it for the requests that use it. The caller has unlinked it.
fn bury(lists: &Writing, group: Group, list: ListMut<'_>, left: PeerMut<'_>) {
    list.set_number(list.number().wrapping_sub(1));
    list.set_total_weight(list.total_weight().wrapping_sub(left.weight() as usize));
    list.set_tries(list.tries().wrapping_sub(usize::from(left.is_up())));
    list.settle_weighted();
    if let Some(extra) = lists.zone().extra() {
        // SAFETY: the words live as long as the zone.
        unsafe { extra.as_ref() }.depart(left.address());
    }
    zombies::keep(lists, group, left);
}

/// Puts an empty list of backups behind the primaries, and locks it with them.
pub(super) fn link_backups(lists: &mut Writing, prepared: &mut PreparedList) {
    if lists.backup().is_some() {
        return;
    }
    let Some(backup) = prepared.take() else { return };
    let primary = lists.primary().raw().as_ptr();
    // SAFETY: the primaries are locked for writing. The list is zeroes, and nobody knows it before it is linked.
    unsafe {
        (*backup.as_ptr()).shpool = (*primary).shpool;
        (*backup.as_ptr()).name = (*primary).name;
        (*backup.as_ptr()).config = (*primary).config;
        lists.adopt(backup);
        (*primary).next = backup.as_ptr();
    }
}

/// Notes whether there is but one server, which nginx treats otherwise.
pub(super) fn set_single(lists: &Writing) {
    let backups = lists.backup().map_or(0, |backup| backup.number());
    let primary = lists.primary_mut();
    primary.set_single(lists.zone().is_single(primary.number(), backups));
}

/// Counts a linked peer into its list.
fn count_in(list: ListMut<'_>, peer: Peer<'_>) {
    list.set_number(list.number().wrapping_add(1));
    list.set_total_weight(list.total_weight().wrapping_add(peer.weight() as usize));
    list.set_tries(list.tries().wrapping_add(usize::from(peer.is_up())));
    list.settle_weighted();
}
