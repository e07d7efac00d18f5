//! Peers that come and go: linked and unlinked under the locks.

use std::ptr::NonNull;

use crate::model::id::Group;

use super::super::edits::{Edits, Fate, Touched};
use super::super::handle::Zone;
use super::super::lock::Lists;
use super::super::nginx_peers::{RawPeer, RawPeers};
use super::super::place::Place;
use super::super::setting::{Abilities, set, set_weighted};
use super::prepared::{Prepared, PreparedList};
use super::zombies;

/// Makes the edits of one list.
///
/// # Safety
///
/// The write locks of both lists are held; the places in the edits are those of linked peers.
pub(super) unsafe fn edit_list(
    zone: &Zone,
    group: Group,
    list: NonNull<RawPeers>,
    abilities: Abilities,
    edits: &mut Edits<Prepared, PreparedList>,
    touched: &mut Touched,
) {
    let of_list = edits.at.iter_mut().filter(|(spot, _)| spot.group == group);
    // SAFETY: the locks are held. A peer that leaves goes on to exist as a zombie until they are given back, so that the
    // places in the edits can be looked at; `near` always belongs to the list or to the peer before the one that left.
    unsafe {
        let mut near = &raw mut (*list.as_ptr()).peer;
        for (spot, fate) in of_list {
            let Some(place) = spot.peer else { continue };
            if let Fate::Set(setting) = fate {
                touched.weights |= set(list, place.0, abilities, setting);
                continue;
            }
            let Some(link) = link_to(list, place, spot.before, near) else { continue };
            let (link, peer) = (link.as_ptr(), place.0.as_ptr());
            near = link;
            match fate {
                Fate::Replace(prepared) => {
                    prepared.inherit(place.0);
                    let Some(new) = prepared.take() else { continue };
                    (*new.as_ptr()).next = (*peer).next;
                    *link = new.as_ptr();
                    count_in(list, new);
                }
                Fate::Leave | Fate::Set(_) => *link = (*peer).next,
            }
            bury(zone, group, list, place.0);
            touched.members = true;
        }
        let [primaries, backups] = edits.last;
        let last = if group.is_backup() { backups } else { primaries };
        let mut appended = edits.append.iter_mut().filter(|(of, _)| *of == group).peekable();
        if appended.peek().is_none() {
            return;
        }
        let mut link = end_of(list, last);
        for (_, prepared) in appended {
            if let Some(new) = prepared.take() {
                *link = new.as_ptr();
                link = &raw mut (*new.as_ptr()).next;
                count_in(list, new);
                touched.members = true;
            }
        }
    }
}

/// Where the pointer to a peer is, under the locks of its list: behind `before` if that is the one before it, else
/// behind one that is looked for, first from `near` on, which is where the last one was found.
///
/// # Safety
///
/// The write locks are held; `peer` and `before` were linked when they were taken, and what left since is marked as a
/// zombie; `near` is part of the list, or of a peer that is linked in it.
unsafe fn link_to(
    list: NonNull<RawPeers>,
    peer: Place,
    before: Option<Place>,
    near: *mut *mut RawPeer,
) -> Option<NonNull<*mut RawPeer>> {
    let peer = peer.0.as_ptr();
    // SAFETY: see above.
    unsafe {
        if let Some(Place(before)) = before
            && (*before.as_ptr()).zombie() == 0
            && (*before.as_ptr()).next == peer
        {
            return NonNull::new(&raw mut (*before.as_ptr()).next);
        }
        for mut link in [near, &raw mut (*list.as_ptr()).peer] {
            while !(*link).is_null() {
                if *link == peer {
                    return NonNull::new(link);
                }
                link = &raw mut (**link).next;
            }
        }
    }
    None
}

/// Where the pointer to the next new peer of a list belongs: behind its last one, which is looked for from `near` on.
///
/// # Safety
///
/// Likewise.
unsafe fn end_of(list: NonNull<RawPeers>, near: Option<Place>) -> *mut *mut RawPeer {
    // SAFETY: see above.
    unsafe {
        let mut link = match near {
            Some(Place(near)) if (*near.as_ptr()).zombie() == 0 => &raw mut (*near.as_ptr()).next,
            _ => &raw mut (*list.as_ptr()).peer,
        };
        while !(*link).is_null() {
            link = &raw mut (**link).next;
        }
        link
    }
}

/// Counts a peer out of its list and keeps it for the requests that use it. The caller has unlinked it.
///
/// # Safety
///
/// The write locks of both lists are held.
unsafe fn bury(zone: &Zone, group: Group, list: NonNull<RawPeers>, left: NonNull<RawPeer>) {
    let (list, peer) = (list.as_ptr(), left.as_ptr());
    // SAFETY: see above; the words of the zone are guarded by the same locks.
    unsafe {
        (*list).number = (*list).number.wrapping_sub(1);
        (*list).total_weight = (*list).total_weight.wrapping_sub((*peer).weight as usize);
        (*list).tries = (*list).tries.wrapping_sub(usize::from((*peer).down == 0));
        set_weighted(list);
        (*peer).refs += 1;
        RawPeer::set_zombie_raw(peer, 1);
        if let Some(extra) = zone.extra() {
            (*extra.as_ptr()).depart((*peer).sockaddr, (*peer).socklen);
        }
        zombies::keep(zone, group, left);
    }
}

/// Puts an empty list of backups behind the primaries, and locks it with them.
///
/// # Safety
///
/// The write lock of the primaries is held.
pub(super) unsafe fn link_backups(lists: &mut Lists, prepared: &mut PreparedList) {
    if lists.backup.is_some() {
        return;
    }
    let Some(backup) = prepared.take() else { return };
    let primary = lists.primary.as_ptr();
    // SAFETY: see above; the list is zeroes, and nobody knows it before it is linked.
    unsafe {
        (*backup.as_ptr()).shpool = (*primary).shpool;
        (*backup.as_ptr()).name = (*primary).name;
        (*backup.as_ptr()).config = (*primary).config;
        lists.adopt(backup);
        (*primary).next = backup.as_ptr();
    }
}

/// Notes whether there is but one server, which nginx treats otherwise.
///
/// # Safety
///
/// The write locks of both lists are held.
pub(super) unsafe fn set_single(zone: &Zone, lists: &Lists) {
    let primary = lists.primary.as_ptr();
    // SAFETY: see above.
    unsafe {
        let backups = lists.backup.map_or(0, |backup| (*backup.as_ptr()).number);
        let single = zone.is_single((*primary).number, backups);
        RawPeers::set_single_raw(primary, u32::from(single));
    }
}

/// Counts a linked peer into its list.
///
/// # Safety
///
/// The write locks of both lists are held.
unsafe fn count_in(list: NonNull<RawPeers>, peer: NonNull<RawPeer>) {
    let (list, peer) = (list.as_ptr(), peer.as_ptr());
    // SAFETY: see above.
    unsafe {
        (*list).number = (*list).number.wrapping_add(1);
        (*list).total_weight = (*list).total_weight.wrapping_add((*peer).weight as usize);
        (*list).tries = (*list).tries.wrapping_add(usize::from((*peer).down == 0));
        set_weighted(list);
    }
}
