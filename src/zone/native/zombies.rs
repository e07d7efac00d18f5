//! Peers that left and that requests still use: kept, freed after the last of them, or taken back by a server that
//! returns to the address.

use std::ptr::NonNull;

use crate::model::id::Group;
use crate::model::snapshot::Zombies;

use super::super::edits::{Edits, Fate};
use super::super::extra::hash;
use super::super::handle::Zone;
use super::super::nginx_peers::RawPeer;
use super::super::place::Place;
use super::prepared::{Prepared, PreparedList, release};
use super::words::Zombie;

/// The lists that a peer can have left. It returns to the same one: a request gives its peer back under the lock of the
/// list that it chose it from.
const GROUPS: [Group; 2] = [Group::Primary, Group::Backup];

/// Where the list of the zombies of a group begins; none while the upstream is only read.
fn first(zone: &Zone, group: Group) -> Option<*mut Zombie> {
    let extra = zone.extra()?.as_ptr();
    // SAFETY: the words lie in the zone, and there is one for each group; only an address is taken.
    Some(unsafe { (&raw mut (*extra).own.zombies).cast::<Zombie>().add(usize::from(group.is_backup())) })
}

/// Where the pointer to each zombie is, those of the primaries first.
///
/// # Safety
///
/// The locks of both lists are held for as long as the iterator is used. What is taken out of a list is taken out before
/// the next is asked for, and then where it was is looked at again.
unsafe fn links(zone: &Zone) -> impl Iterator<Item = (Group, *mut Zombie)> + use<> {
    let firsts = GROUPS.map(|group| (group, first(zone, group)));
    firsts.into_iter().filter_map(|(group, first)| Some((group, first?))).flat_map(|(group, first)| {
        let mut link = first;
        let mut seen: Zombie = std::ptr::null_mut();
        std::iter::from_fn(move || {
            // SAFETY: see above: zombies are freed under the write locks only.
            unsafe {
                if !seen.is_null() && *link == seen {
                    link = &raw mut (*seen).next;
                }
                seen = *link;
            }
            (!seen.is_null()).then_some((group, link))
        })
    })
}

/// Keeps a peer that left for the requests that use it.
///
/// # Safety
///
/// The write locks of both lists are held. The peer is marked as a zombie, is in no list, and has a reference that is
/// the module's.
pub(super) unsafe fn keep(zone: &Zone, group: Group, peer: NonNull<RawPeer>) {
    if let Some(first) = first(zone, group) {
        // SAFETY: see above.
        unsafe {
            (*peer.as_ptr()).next = *first;
            *first = peer.as_ptr();
        }
    }
}

/// Whether there are any, as it is seen without locks.
pub(super) fn any(zone: &Zone) -> bool {
    // SAFETY: the words lie in the zone; the pointers are compared and not followed.
    GROUPS
        .iter()
        .any(|group| first(zone, *group).is_some_and(|first| unsafe { !first.read_volatile().is_null() }))
}

/// Counts the peers that left and are still in use.
///
/// # Safety
///
/// The locks of both lists are held.
pub(super) unsafe fn count(zone: &Zone) -> Zombies {
    let mut found = Zombies::default();
    // SAFETY: see above; the peers of the lists are the module's to free, under the write locks.
    unsafe {
        for (_, link) in links(zone) {
            found.peers += 1;
            found.conns = found.conns.wrapping_add((**link).conns as u64);
        }
    }
    found
}

/// Frees the peers that left and that no request uses any more. The caller holds the store's lock, so that only one
/// process does so.
pub(super) fn reap(zone: &Zone) {
    let Some(pool) = zone.pool() else { return };
    if !any(zone) {
        return;
    }
    let mut dead: Zombie = std::ptr::null_mut();
    // SAFETY: the lists of zombies are guarded by the write locks. What was taken out of them is known to nobody else.
    unsafe {
        let Some(lists) = zone.write() else { return };
        for (_, link) in links(zone) {
            let peer = *link;
            if !is_used(peer) {
                *link = (*peer).next;
                (*peer).next = dead;
                dead = peer;
            }
        }
        drop(lists);
        while let Some(peer) = NonNull::new(dead) {
            dead = (*peer.as_ptr()).next;
            release(pool, peer);
        }
    }
}

/// Whether any request uses a zombie: the last reference is the module's own.
///
/// # Safety
///
/// The locks of both lists are held.
unsafe fn is_used(zombie: Zombie) -> bool {
    // SAFETY: see above.
    unsafe { (*zombie).refs > 1 }
}

/// The new servers of the edits, each with its list.
fn arriving(edits: &Edits<Prepared, PreparedList>) -> impl Iterator<Item = (Group, &Prepared)> {
    let replacing = edits.at.iter().filter_map(|(spot, fate)| match fate {
        Fate::Replace(prepared) => Some((spot.group, prepared)),
        Fate::Set(_) | Fate::Leave => None,
    });
    replacing.chain(edits.append.iter().map(|(group, prepared)| (*group, prepared)))
}

/// What finds a server among those that left.
pub(super) fn key(prepared: &Prepared) -> Option<u64> {
    prepared.place().map(|Place(peer)| {
        // SAFETY: the peer is the prepared server's own until it is linked; an address is as long as it says.
        unsafe { hash((*peer.as_ptr()).sockaddr, (*peer.as_ptr()).socklen) }
    })
}

/// Finds for each new server the peer that it had before, if requests still use that: so they go on to be counted.
///
/// # Safety
///
/// The write locks of both lists are held.
pub(super) unsafe fn seat(zone: &Zone, edits: &mut Edits<Prepared, PreparedList>) {
    edits.seats.clear();
    for (_, prepared) in arriving(edits) {
        prepared.seat.set(None);
    }
    let Edits { at, append, seats, keys, .. } = edits;
    // SAFETY: see above: peers that are linked, or kept as zombies, stay.
    unsafe {
        for (group, link) in links(zone).filter(|(_, link)| is_used(**link)) {
            let Some(peer) = NonNull::new(*link) else { continue };
            let hash = hash((*peer.as_ptr()).sockaddr, (*peer.as_ptr()).socklen);
            let from = keys.partition_point(|(key, _)| *key < hash);
            let same = keys.get(from..).unwrap_or_default().iter().take_while(|(key, _)| *key == hash);
            let mut returning = same.filter_map(|(_, number)| match at.get(*number) {
                Some((spot, Fate::Replace(prepared))) => Some((spot.group, prepared, spot.peer)),
                Some(_) => None,
                None => {
                    let (group, prepared) = append.get(number.checked_sub(at.len())?)?;
                    Some((*group, prepared, None))
                }
            });
            let own = returning.find(|(of, prepared, before)| {
                *of == group
                    && prepared.seat.get().is_none()
                    && prepared.had(peer, before.map(|place| place.0))
            });
            // Nothing may be allocated.
            if let Some((_, prepared, _)) = own
                && seats.len() < seats.capacity()
            {
                prepared.seat.set(Some(peer));
                seats.push(peer);
            }
        }
    }
    seats.sort_unstable();
}

/// Keeps on those peers that were taken out and no server came into.
///
/// # Safety
///
/// Likewise, and the edits were made.
pub(super) unsafe fn put_back(zone: &Zone, edits: &Edits<Prepared, PreparedList>) {
    if edits.seats.is_empty() {
        return;
    }
    for (group, prepared) in arriving(edits) {
        if let Some(peer) = prepared.seat.take() {
            // SAFETY: see above.
            unsafe { keep(zone, group, peer) };
        }
    }
}

/// Takes the peers that servers return to out of the lists of zombies.
///
/// # Safety
///
/// The write locks of both lists are held, and the peers were found under them.
pub(super) unsafe fn take_out(zone: &Zone, edits: &Edits<Prepared, PreparedList>) {
    if edits.seats.is_empty() {
        return;
    }
    // SAFETY: see above.
    unsafe {
        for (_, link) in links(zone) {
            let is_seat = NonNull::new(*link).is_some_and(|peer| edits.seats.binary_search(&peer).is_ok());
            if is_seat {
                *link = (**link).next;
            }
        }
    }
}
