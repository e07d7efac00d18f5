//! Who is in which slot, and what follows from that for a list.

use std::ptr::{self, NonNull};

use crate::model::id::Group;
use crate::model::snapshot::{Faults, Zombies};

use super::super::backend::NoSeat;
use super::super::capacity::room::TEXT_SIZE;
use super::super::edits::{Edits, Fate, Touched};
use super::super::handle::Zone;
use super::super::lock::Lists;
use super::super::nginx_peers::{RawPeer, RawPeers};
use super::super::peers::Peers;
use super::super::place::{Place, Spot};
use super::super::setting::{Abilities, set, set_weighted};
use super::blanks;
use super::prepared::Prepared;
use super::words::Words;

/// A slot.
type Peer = NonNull<RawPeer>;

/// A list of slots.
type List = NonNull<RawPeers>;

/// What becomes of servers, by where they are.
type Fates = [(Spot, Fate<Prepared>)];

/// A part of a list that is being put together.
struct Chain {
    /// Its first slot.
    first: *mut RawPeer,
    /// Its last slot.
    last: *mut RawPeer,
}

impl Chain {
    /// A part without slots.
    const EMPTY: Self = Self { first: ptr::null_mut(), last: ptr::null_mut() };

    /// Appends a slot, which is linked nowhere else.
    ///
    /// # Safety
    ///
    /// The write lock of the list is held.
    unsafe fn push(&mut self, slot: Peer) {
        // SAFETY: see above; slots are never freed.
        unsafe {
            (*slot.as_ptr()).next = ptr::null_mut();
            if self.last.is_null() {
                self.first = slot.as_ptr();
            } else {
                (*self.last).next = slot.as_ptr();
            }
        }
        self.last = slot.as_ptr();
    }
}

/// Finds a slot for each new server.
///
/// # Safety
///
/// The write locks of both lists are held.
pub(super) unsafe fn seat<L>(
    zone: &Zone,
    lists: &Lists,
    edits: &mut Edits<Prepared, L>,
) -> Result<(), NoSeat> {
    let Edits { at, append, seats, .. } = edits;
    seats.clear();
    let Some(words) = Words::of(zone) else { return Ok(()) };
    // SAFETY: written once, before the workers start.
    let configured = unsafe { (*words.as_ptr()).configured };
    let mut result = Ok(());
    for ((group, list), configured) in lists.iter().zip(configured) {
        let arriving = append.iter().filter(|(of, _)| *of == group);
        let left = fates(at, group).filter(|(_, fate)| matches!(fate, Fate::Leave)).count();
        // SAFETY: see above.
        unsafe {
            // One slot is kept for a server that changes its address, unless the zone had no room for it.
            let capacity = Words::slots(words, group).saturating_sub(1).max(configured);
            let count = arriving.clone().count();
            let present = blanks::sums(zone, group, list).number as usize;
            if count > 0 && present + count > capacity + left {
                result = Err(NoSeat::Capacity(group, capacity));
            }
            let moving = fates(at, group).filter_map(|(_, fate)| match fate {
                Fate::Replace(prepared) => Some(prepared),
                Fate::Set(_) | Fate::Leave => None,
            });
            let new = moving.chain(arriving.map(|(_, prepared)| prepared));
            if !seat_in(words, group, at, new, seats) {
                let is_used = |slot: Peer| (*slot.as_ptr()).conns > 0;
                let none = if (*words.as_ptr()).narrow {
                    NoSeat::Memory(TEXT_SIZE)
                } else if places(words, group, at).any(is_used) {
                    NoSeat::Busy
                } else {
                    NoSeat::Capacity(group, capacity)
                };
                result = result.and(Err(none));
            }
        }
    }
    if lists.backup.is_none() && append.iter().any(|(group, _)| group.is_backup()) {
        result = Err(NoSeat::Capacity(Group::Backup, 0));
    }
    result
}

/// What becomes of the servers of a list.
fn fates(at: &Fates, group: Group) -> impl Iterator<Item = &(Spot, Fate<Prepared>)> + Clone {
    at.iter().filter(move |(spot, _)| spot.group == group)
}

/// Finds slots in one list. False if some server has none.
///
/// # Safety
///
/// The write locks of both lists are held.
unsafe fn seat_in<'a>(
    words: NonNull<Words>,
    group: Group,
    at: &Fates,
    new: impl Iterator<Item = &'a Prepared> + Clone,
    seats: &mut Vec<Peer>,
) -> bool {
    let mut all = true;
    // SAFETY: see above.
    unsafe {
        // A server that returns comes back to where it was, even if its last requests are still there.
        for prepared in new.clone() {
            let own = places(words, group, at).find(|slot| prepared.was_in(*slot) && !seats.contains(slot));
            take(prepared, own, seats);
        }
        seats.sort_unstable();
        let returned = seats.len();
        let is_narrow = (*words.as_ptr()).narrow;
        let mut idle = places(words, group, at).filter(|slot| (*slot.as_ptr()).conns == 0);
        for prepared in new.filter(|prepared| prepared.seat.get().is_none()) {
            let is_free =
                |slot: &Peer| seats.get(..returned).unwrap_or_default().binary_search(slot).is_err();
            let slot = if is_narrow { None } else { idle.find(is_free) };
            take(prepared, slot, seats);
            all &= prepared.seat.get().is_some();
        }
        // `edit_list` looks for them, also if some server has none.
        seats.sort_unstable();
    }
    all
}

/// Notes the slot that was found, if there is room to note it: nothing may be allocated.
fn take(prepared: &Prepared, slot: Option<Peer>, seats: &mut Vec<Peer>) {
    let slot = slot.filter(|_| seats.len() < seats.capacity());
    prepared.seat.set(slot);
    seats.extend(slot);
}

/// The slots of a list whose server leaves, and those that no server has.
///
/// # Safety
///
/// The write locks of both lists are held for as long as the iterator is used.
unsafe fn places(words: NonNull<Words>, group: Group, at: &Fates) -> impl Iterator<Item = Peer> {
    let leaving = fates(at, group).filter(|(_, fate)| matches!(fate, Fate::Leave));
    let leaving = leaving.filter_map(|(spot, _)| spot.peer).map(|place| place.0);
    // SAFETY: see above.
    leaving.chain(unsafe { Words::blanks(words, group) })
}

/// Makes the edits of one list.
///
/// # Safety
///
/// The write locks of both lists are held, and slots were found under them.
pub(super) unsafe fn edit_list<L>(
    zone: &Zone,
    group: Group,
    list: List,
    abilities: Abilities,
    edits: &mut Edits<Prepared, L>,
    touched: &mut Touched,
) {
    let Some(words) = Words::of(zone) else { return };
    let Edits { at, append, seats, .. } = edits;
    let is_seat = |slot: &Peer| seats.binary_search(slot).is_ok();
    let has_fates = at.iter().any(|(spot, _)| spot.group == group);
    let mut appended = append.iter_mut().filter(|(of, _)| *of == group).peekable();
    if !has_fates && appended.peek().is_none() {
        return;
    }
    let mut servers = Chain::EMPTY;
    // SAFETY: see above. Each slot of the list stays there or becomes blank, once.
    unsafe {
        if !group.is_backup() {
            // `settle` links it again if no server comes.
            touched.members |= Words::unlink_sentinel(words, list);
        }
        // The slots that servers are to come into are left out, until the walk is over.
        Words::take(words, group, is_seat);
        let mut next = (*list.as_ptr()).peer;
        while let Some(slot) = NonNull::new(next) {
            next = (*slot.as_ptr()).next;
            let fate = at.iter_mut().find(|(spot, _)| spot.group == group && spot.peer == Some(Place(slot)));
            match fate.map(|(_, fate)| fate) {
                Some(Fate::Leave) => {
                    leave(zone, slot);
                    touched.members = true;
                    if !is_seat(&slot) {
                        Words::put(words, group, slot);
                    }
                }
                Some(Fate::Set(setting)) => {
                    touched.weights |= set(list, slot, abilities, setting);
                    servers.push(slot);
                }
                Some(Fate::Replace(prepared)) => {
                    prepared.heir_of = Some(slot);
                    servers.push(slot);
                }
                None => servers.push(slot),
            }
        }
        let mut link = &raw mut servers.first;
        for (_, fate) in at.iter_mut().filter(|(spot, _)| spot.group == group) {
            let Fate::Replace(prepared) = fate else { continue };
            let Some(old) = prepared.heir_of else {
                // There is nobody to replace: nobody comes.
                if let Some(slot) = prepared.seat.take() {
                    Words::put(words, group, slot);
                }
                continue;
            };
            let Some(new) = come(prepared) else { continue };
            // Mostly they are in the order of the list.
            while *link != old.as_ptr() {
                link = if (*link).is_null() { &raw mut servers.first } else { &raw mut (**link).next };
            }
            (*new.as_ptr()).next = (*old.as_ptr()).next;
            *link = new.as_ptr();
            if servers.last == old.as_ptr() {
                servers.last = new.as_ptr();
            }
            leave(zone, old);
            Words::put(words, group, old);
            touched.members = true;
        }
        for (_, prepared) in appended {
            if let Some(slot) = come(prepared) {
                servers.push(slot);
                touched.members = true;
            }
        }
        (*list.as_ptr()).peer = servers.first;
    }
}

/// Lets a server come into the slot that was found for it.
///
/// # Safety
///
/// The write locks of both lists are held.
unsafe fn come(prepared: &mut Prepared) -> Option<Peer> {
    let slot = prepared.seat.take()?;
    // SAFETY: see above; the slot was chosen under these locks.
    unsafe { prepared.fill(slot) };
    Some(slot)
}

/// Makes a slot blank. What requests that use it refer to stays.
///
/// # Safety
///
/// The write locks of both lists are held.
unsafe fn leave(zone: &Zone, slot: Peer) {
    let slot = slot.as_ptr();
    // SAFETY: see above.
    unsafe {
        if let Some(extra) = zone.extra() {
            (*extra.as_ptr()).depart((*slot).sockaddr, (*slot).socklen);
        }
        (*slot).down = 1;
        (*slot).weight = 0;
        (*slot).effective_weight = 0;
        (*slot).current_weight = 0;
    }
}

/// Makes what nginx counts of both lists exact, and `single`.
///
/// # Safety
///
/// The write locks of both lists are held.
pub(super) unsafe fn settle(zone: &Zone, lists: &Lists) {
    let Some(words) = Words::of(zone) else { return };
    let mut counts = [0_usize; 2];
    // SAFETY: see above.
    unsafe {
        for ((group, list), count) in lists.iter().zip(&mut counts) {
            let (mut weight, mut usable) = (0_usize, 0_usize);
            for slot in Peers::of(list).filter(|slot| !blanks::is_blank(zone, *slot)) {
                *count += 1;
                weight = weight.wrapping_add((*slot.as_ptr()).weight as usize);
                usable += usize::from((*slot.as_ptr()).down == 0);
            }
            (*list.as_ptr()).number = number(words, group, *count);
            (*list.as_ptr()).total_weight = weight;
            (*list.as_ptr()).tries = usable;
            set_weighted(list.as_ptr());
        }
        let [primaries, backups] = counts;
        (*words.as_ptr()).backups = backups;
        let single = u32::from(zone.is_single(primaries, backups));
        RawPeers::set_single_raw(lists.primary.as_ptr(), single);
        if primaries == 0 {
            Words::link_sentinel(words, lists.primary);
        }
    }
}

/// What nginx is told to be the number of a list that has so many servers.
///
/// # Safety
///
/// The words lie in a zone that is mapped.
unsafe fn number(words: NonNull<Words>, group: Group, servers: usize) -> usize {
    // SAFETY: see above; the word is written once, before the workers start.
    if group.is_backup() { servers.max(unsafe { (*words.as_ptr()).noted }) } else { servers }
}

/// Counts the servers that left and still serve requests.
///
/// # Safety
///
/// The locks of both lists are held.
pub(super) unsafe fn zombies(zone: &Zone, lists: &Lists) -> Zombies {
    let mut found = Zombies::default();
    let Some(words) = Words::of(zone) else { return found };
    for (group, _) in lists.iter() {
        // SAFETY: see above.
        unsafe {
            for slot in Words::blanks(words, group) {
                let conns = (*slot.as_ptr()).conns as u64;
                found.peers += u64::from(conns > 0);
                found.conns = found.conns.wrapping_add(conns);
            }
        }
    }
    found
}

/// Looks for what must never be.
///
/// # Safety
///
/// The locks of both lists are held.
pub(super) unsafe fn faults(zone: &Zone, lists: &Lists) -> Faults {
    let mut faults = Faults::default();
    let Some(words) = Words::of(zone) else { return faults };
    let mut counts = [0_usize; 2];
    // SAFETY: see above.
    unsafe {
        let sentinel = Words::sentinel(words);
        for ((group, list), servers) in lists.iter().zip(&mut counts) {
            let (mut length, mut blanks) = (0_usize, 0_usize);
            for slot in Peers::of(list) {
                length += 1;
                if blanks::is_blank(zone, slot) {
                    faults.order |= Some(slot) != sentinel;
                } else {
                    *servers += 1;
                }
            }
            for slot in Words::blanks(words, group) {
                blanks += 1;
                let wanted = isize::from(Some(slot) == sentinel);
                faults.blank |= (*slot.as_ptr()).down == 0 || (*slot.as_ptr()).weight != wanted;
            }
            faults.order |= length > *servers && *servers > 0;
            faults.length |= *servers + blanks != Words::slots(words, group)
                || (*list.as_ptr()).number != number(words, group, length);
        }
        let [primaries, backups] = counts;
        let primary = lists.primary.as_ptr();
        faults.length |= (*words.as_ptr()).backups != backups;
        faults.weight = (*primary).total_weight == 0 || (primaries == 0) == sentinel.is_none();
        faults.single = ((*primary).single() != 0) != zone.is_single(primaries, backups);
    }
    faults
}
