//! Peers that left and that requests still use: kept, freed after the last of them, or taken back by a server that
//! returns to the address.

use std::ptr::NonNull;

use crate::model::id::Group;
use crate::model::snapshot::Zombies;

use super::super::edits::{Edits, Fate};
use super::super::extra::{hash, own};
use super::super::handle::Zone;
use super::super::lock::{Lists, Writing};
use super::super::nginx_peers::RawPeer;
use super::super::peers::{Link, Peer, PeerMut, Peers};
use super::prepared::{Prepared, PreparedList, release};
use super::words::Zombie;

/// The lists that a peer can have left. It returns to the same one: a request gives its peer back under the lock of the
/// list that it chose it from.
const GROUPS: [Group; 2] = [Group::Primary, Group::Backup];

/// Where the pointer to the first zombie of a group is; none while the upstream is only read.
fn first(zone: &Zone, group: Group) -> Option<NonNull<Zombie>> {
    let own = own(zone.extra()?);
    // SAFETY: the words lie in the zone, and there is one for each group; only an address is taken.
    NonNull::new(unsafe { (&raw mut (*own).zombies).cast::<Zombie>().add(usize::from(group.is_backup())) })
}

/// The chains of zombies, that of the primaries first.
fn chains(lists: &Writing) -> impl Iterator<Item = (Group, Link<'_>)> {
    let zone = lists.zone();
    // SAFETY: the chains are guarded by the write locks of both lists, and zombies are freed under them only.
    GROUPS.into_iter().filter_map(|group| Some((group, unsafe { Link::new(first(zone, group)?) })))
}

/// Keeps a peer that left, and is in no list any more, for the requests that use it. The module holds a reference to it.
pub(super) fn keep(lists: &Writing, group: Group, peer: PeerMut<'_>) {
    // SAFETY: the write locks are held, which guard these words.
    unsafe {
        (*peer.raw().as_ptr()).refs += 1;
        RawPeer::set_zombie_raw(peer.raw().as_ptr(), 1);
    }
    put(lists, group, peer);
}

/// Puts a zombie into its chain.
fn put(lists: &Writing, group: Group, peer: PeerMut<'_>) {
    if let Some((_, chain)) = chains(lists).find(|(of, _)| *of == group) {
        // SAFETY: a zombie stays until the module gives it back, which it does under the write locks.
        chain.insert(unsafe { PeerMut::new(peer.raw()) });
    }
}

/// Whether there are any, as it is seen without locks.
pub(super) fn any(zone: &Zone) -> bool {
    // SAFETY: the words lie in the zone; the pointers are compared and not followed.
    let has = |first: NonNull<Zombie>| unsafe { !first.read_volatile().is_null() };
    GROUPS.iter().any(|group| first(zone, *group).is_some_and(has))
}

/// Counts the peers that left and are still in use.
pub(super) fn count(lists: &Lists) -> Zombies {
    let mut found = Zombies::default();
    for first in GROUPS.iter().filter_map(|group| first(lists.zone(), *group)) {
        // SAFETY: zombies are the module's to free, under the write locks; a lock is held.
        for peer in unsafe { Peers::starting(first.read()) } {
            found.peers += 1;
            found.conns = found.conns.wrapping_add(peer.conns() as u64);
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
    let Some(lists) = zone.write() else { return };
    for (_, chain) in chains(&lists) {
        let unused = |peer: PeerMut<'_>| !is_used(*peer);
        chain.take(unused, |peer| {
            // SAFETY: what was taken out of the chain is known to nobody else.
            unsafe { (*peer.raw().as_ptr()).next = dead };
            dead = peer.raw().as_ptr();
        });
    }
    drop(lists);
    while let Some(peer) = NonNull::new(dead) {
        // SAFETY: likewise.
        unsafe {
            dead = (*peer.as_ptr()).next;
            release(pool, peer);
        }
    }
}

/// Whether any request uses a zombie: the last reference is the module's own.
fn is_used(zombie: Peer<'_>) -> bool {
    // SAFETY: the peer stays while its lock is held.
    unsafe { (&raw const (*zombie.raw().as_ptr()).refs).read_volatile() > 1 }
}

/// The new servers of the edits, each with its list.
fn arriving(edits: &Edits<Prepared, PreparedList>) -> impl Iterator<Item = (Group, &Prepared)> {
    let replacing = edits.at.iter().filter_map(|(spot, fate)| match fate {
        Fate::Replace(prepared) => Some((spot.group, prepared)),
        Fate::Set(_) | Fate::Leave => None,
    });
    replacing.chain(edits.append.iter().map(|(group, prepared)| (*group, prepared)))
}

/// Finds for each new server the peer that it had before, if requests still use that: so they go on to be counted.
///
/// # Safety
///
/// The places in the edits are those of linked peers.
pub(super) unsafe fn seat(lists: &Writing, edits: &mut Edits<Prepared, PreparedList>) {
    edits.seats.clear();
    for (_, prepared) in arriving(edits) {
        prepared.seat.set(None);
    }
    for (group, chain) in chains(lists) {
        let mut next = chain.get();
        while let Some(peer) = next {
            next = peer.link().get();
            if is_used(*peer) {
                // SAFETY: see above.
                unsafe { seat_in(group, *peer, edits) };
            }
        }
    }
    edits.seats.sort_unstable();
}

/// Finds the new server that had a peer before, and seats it there.
///
/// # Safety
///
/// See [`seat`].
unsafe fn seat_in(group: Group, peer: Peer<'_>, edits: &mut Edits<Prepared, PreparedList>) {
    let Edits { at, append, seats, keys, .. } = edits;
    let hash = hash(peer.address());
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
        // SAFETY: see above.
        let before = before.map(|place| unsafe { Peer::new(place.0) });
        *of == group && prepared.seat.get().is_none() && prepared.had(peer, before)
    });
    // Nothing may be allocated.
    if let Some((_, prepared, _)) = own
        && seats.len() < seats.capacity()
    {
        prepared.seat.set(Some(peer.raw()));
        seats.push(peer.raw());
    }
}

/// Keeps on those peers that were taken out and no server came into.
///
/// # Safety
///
/// The edits were seated under these locks, and made.
pub(super) unsafe fn put_back(lists: &Writing, edits: &Edits<Prepared, PreparedList>) {
    if edits.seats.is_empty() {
        return;
    }
    for (group, prepared) in arriving(edits) {
        if let Some(peer) = prepared.seat.take() {
            // SAFETY: see above: it is a zombie that was taken out, and stays.
            put(lists, group, unsafe { PeerMut::new(peer) });
        }
    }
}

/// Takes the peers that servers return to out of the chains of zombies.
pub(super) fn take_out(lists: &Writing, edits: &Edits<Prepared, PreparedList>) {
    if edits.seats.is_empty() {
        return;
    }
    for (_, chain) in chains(lists) {
        chain.take(|peer| edits.seats.binary_search(&peer.raw()).is_ok(), |_| ());
    }
}
