//! Who is in which slot, and what follows from that for a list.

use std::ptr::{self, NonNull};

use nginx_sys::{ngx_http_upstream_rr_peer_t, ngx_http_upstream_rr_peers_t};

use crate::model::id::Group;
use crate::model::snapshot::{Faults, Zombies};

use super::super::apply::{Abilities, Edits, Fate, Touched, set, set_weighted};
use super::super::backend::{Backend, NoSeat};
use super::super::capacity::room::TEXT_SIZE;
use super::super::capacity::texts;
use super::super::lock::Lists;
use super::super::peers::{Peers, Zone};
use super::super::place::{Place, Spot};
use super::Slots;
use super::prepared::Prepared;

/// A slot.
type Peer = NonNull<ngx_http_upstream_rr_peer_t>;

/// A list of slots.
type List = NonNull<ngx_http_upstream_rr_peers_t>;

/// What becomes of servers, by where they are.
type Fates = [(Spot, Fate)];

/// A part of a list that is being put together.
struct Chain {
    /// Its first slot.
    first: *mut ngx_http_upstream_rr_peer_t,
    /// Its last slot.
    last: *mut ngx_http_upstream_rr_peer_t,
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

    /// Puts another part behind this one.
    ///
    /// # Safety
    ///
    /// Likewise.
    unsafe fn append(mut self, other: Self) -> Self {
        if self.last.is_null() {
            return other;
        }
        // SAFETY: see above.
        unsafe { (*self.last).next = other.first };
        if !other.last.is_null() {
            self.last = other.last;
        }
        self
    }
}

/// Makes the slots ready to be filled, and notes how many there are.
///
/// # Safety
///
/// Called by the master, in `init_module`, with the module's words in the zone: nobody else uses the lists.
pub(super) unsafe fn begin(zone: &Zone) {
    let Some(words) = Slots::words(zone) else { return };
    let Some(lists) = zone.write() else { return };
    let (mut slots, mut configured) = ([0; 2], [0; 2]);
    for (((_, list), slots), configured) in lists.iter().zip(&mut slots).zip(&mut configured) {
        // SAFETY: the locks are held.
        *slots = unsafe { (*list.as_ptr()).number };
        *configured = zone.servers(list).count();
    }
    drop(lists);
    // SAFETY: see above.
    unsafe {
        (*words.as_ptr()).slots = slots;
        (*words.as_ptr()).configured = configured;
        (*words.as_ptr()).narrow = !texts::ready(zone);
    }
}

/// Finds a slot for each new server.
///
/// # Safety
///
/// The write locks of both lists are held.
pub(super) unsafe fn seat(zone: &Zone, lists: &Lists, edits: &mut Edits) -> Result<(), NoSeat> {
    let Edits { at, append, seats, leaving, .. } = edits;
    seats.clear();
    leaving.clear();
    let left = at.iter().filter(|(_, fate)| matches!(fate, Fate::Leave)).filter_map(|(spot, _)| spot.peer);
    leaving.extend(left.map(|place| place.0).take(leaving.capacity()));
    leaving.sort_unstable();
    let Some(words) = Slots::words(zone) else { return Ok(()) };
    // SAFETY: written once, before the workers start.
    let configured = unsafe { (*words.as_ptr()).configured };
    let mut result = Ok(());
    for ((group, list), configured) in lists.iter().zip(configured) {
        let arriving = append.iter().filter(|(of, _)| *of == group);
        let left = fates(at, group).filter(|fate| matches!(fate, Fate::Leave)).count();
        // SAFETY: see above.
        unsafe {
            // One slot is kept for a server that changes its address, unless the zone had no room for it.
            let capacity = (*list.as_ptr()).number.saturating_sub(1).max(configured);
            let count = arriving.clone().count();
            if count > 0 && zone.servers(list).count() + count > capacity + left {
                result = Err(NoSeat::Capacity(group, capacity));
            }
            let moving = fates(at, group).filter_map(|fate| match fate {
                Fate::Replace(prepared) => Some(prepared),
                Fate::Set(_) | Fate::Leave => None,
            });
            let new = moving.chain(arriving.map(|(_, prepared)| prepared));
            if !seat_in(zone, list, leaving, new, seats) {
                let is_used = |slot: Peer| (*slot.as_ptr()).conns > 0;
                let none = if (*words.as_ptr()).narrow {
                    NoSeat::Memory(TEXT_SIZE)
                } else if places(zone, list, leaving).any(is_used) {
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
fn fates(at: &Fates, group: Group) -> impl Iterator<Item = &Fate> + Clone {
    at.iter().filter(move |(spot, _)| spot.group == group).map(|(_, fate)| fate)
}

/// Finds slots in one list. False if some server has none.
///
/// # Safety
///
/// The write locks of both lists are held.
unsafe fn seat_in<'a>(
    zone: &Zone,
    list: List,
    leaving: &[Peer],
    new: impl Iterator<Item = &'a Prepared> + Clone,
    seats: &mut Vec<Peer>,
) -> bool {
    let mut all = true;
    // SAFETY: see above.
    unsafe {
        // A server that returns comes back to where it was, even if its last requests are still there.
        for prepared in new.clone() {
            let own =
                places(zone, list, leaving).find(|slot| prepared.was_in(*slot) && !seats.contains(slot));
            take(prepared, own, seats);
        }
        seats.sort_unstable();
        let returned = seats.len();
        let is_narrow = Slots::words(zone).is_none_or(|words| (*words.as_ptr()).narrow);
        let mut idle = places(zone, list, leaving).filter(|slot| (*slot.as_ptr()).conns == 0);
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

/// The slots of a list that no server has, or whose server leaves.
///
/// # Safety
///
/// The write locks of both lists are held for as long as the iterator is used.
unsafe fn places(zone: &Zone, list: List, leaving: &[Peer]) -> impl Iterator<Item = Peer> {
    // SAFETY: see above.
    unsafe { Peers::of(list) }
        .filter(move |slot| Slots::is_blank(zone, *slot) || leaving.binary_search(slot).is_ok())
}

/// Makes the edits of one list.
///
/// # Safety
///
/// The write locks of both lists are held, and slots were found under them.
pub(super) unsafe fn edit_list(
    zone: &Zone,
    group: Group,
    list: List,
    abilities: Abilities,
    edits: &mut Edits,
    touched: &mut Touched,
) {
    let Edits { at, append, seats, .. } = edits;
    let is_seat = |slot: &Peer| seats.binary_search(slot).is_ok();
    let has_fates = at.iter().any(|(spot, _)| spot.group == group);
    let mut appended = append.iter_mut().filter(|(of, _)| *of == group).peekable();
    if !has_fates && appended.peek().is_none() {
        return;
    }
    let (mut servers, mut blanks) = (Chain::EMPTY, Chain::EMPTY);
    // SAFETY: see above; each slot of the list is put into one of the two parts, once.
    unsafe {
        // The slots that servers are to come into are left out, until the walk is over.
        let mut next = (*list.as_ptr()).peer;
        while let Some(slot) = NonNull::new(next) {
            next = (*slot.as_ptr()).next;
            if Slots::is_blank(zone, slot) {
                if !is_seat(&slot) {
                    blanks.push(slot);
                }
                continue;
            }
            let fate = at.iter_mut().find(|(spot, _)| spot.group == group && spot.peer == Some(Place(slot)));
            match fate.map(|(_, fate)| fate) {
                Some(Fate::Leave) => {
                    leave(zone, slot);
                    touched.members = true;
                    if !is_seat(&slot) {
                        blanks.push(slot);
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
            let Some(old) = prepared.heir_of else { continue };
            let Some(new) = come(zone, prepared) else { continue };
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
            blanks.push(old);
            touched.members = true;
        }
        for (_, prepared) in appended {
            if let Some(slot) = come(zone, prepared) {
                servers.push(slot);
                touched.members = true;
            }
        }
        (*list.as_ptr()).peer = servers.append(blanks).first;
    }
}

/// Lets a server come into the slot that was found for it.
///
/// # Safety
///
/// The write locks of both lists are held.
unsafe fn come(zone: &Zone, prepared: &mut Prepared) -> Option<Peer> {
    let slot = prepared.seat.take()?;
    // SAFETY: see above; the slot was chosen under these locks.
    unsafe {
        if let Some(words) = Slots::words(zone)
            && (*words.as_ptr()).sentinel == slot.as_ptr()
        {
            (*words.as_ptr()).sentinel = ptr::null_mut();
        }
        prepared.fill(slot);
    }
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

/// Makes the sums of both lists exact, and `single`.
///
/// # Safety
///
/// The write locks of both lists are held.
pub(super) unsafe fn settle(zone: &Zone, lists: &Lists) {
    let Some(words) = Slots::words(zone) else { return };
    let mut counts = [0_usize; 2];
    // SAFETY: see above.
    unsafe {
        if let Some(sentinel) = NonNull::new((*words.as_ptr()).sentinel) {
            (*sentinel.as_ptr()).weight = 0;
            (*words.as_ptr()).sentinel = ptr::null_mut();
        }
        for ((_, list), count) in lists.iter().zip(&mut counts) {
            let (mut weight, mut usable) = (0_usize, 0_usize);
            for slot in zone.servers(list) {
                *count += 1;
                weight = weight.wrapping_add((*slot.as_ptr()).weight as usize);
                usable += usize::from((*slot.as_ptr()).down == 0);
            }
            (*list.as_ptr()).total_weight = weight;
            (*list.as_ptr()).tries = usable;
            set_weighted(list.as_ptr());
        }
        let [primaries, backups] = counts;
        let primary = lists.primary.as_ptr();
        ngx_http_upstream_rr_peers_t::set_single_raw(primary, u32::from(zone.is_single(primaries, backups)));
        if primaries == 0
            && let Some(first) = NonNull::new((*primary).peer)
        {
            (*first.as_ptr()).weight = 1;
            (*primary).total_weight = 1;
            (*words.as_ptr()).sentinel = first.as_ptr();
        }
    }
}

/// Counts the servers that left and still serve requests.
///
/// # Safety
///
/// The locks of both lists are held.
pub(super) unsafe fn zombies(zone: &Zone, lists: &Lists) -> Zombies {
    let mut found = Zombies::default();
    for (_, list) in lists.iter() {
        // SAFETY: see above.
        unsafe {
            for slot in Peers::of(list).filter(|slot| Slots::is_blank(zone, *slot)) {
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
    let Some(words) = Slots::words(zone) else { return faults };
    let mut counts = [0_usize; 2];
    // SAFETY: see above.
    unsafe {
        let sentinel = (*words.as_ptr()).sentinel;
        for ((_, list), (servers, slots)) in lists.iter().zip(counts.iter_mut().zip((*words.as_ptr()).slots))
        {
            let (mut length, mut blanks) = (0_usize, 0_usize);
            for slot in Peers::of(list) {
                length += 1;
                if Slots::is_blank(zone, slot) {
                    let slot = slot.as_ptr();
                    blanks += 1;
                    faults.blank |= (*slot).down == 0 || ((*slot).weight != 0 && slot != sentinel);
                } else {
                    *servers += 1;
                    faults.order |= blanks > 0;
                }
            }
            faults.length |= length != slots || length != (*list.as_ptr()).number;
        }
        let [primaries, backups] = counts;
        let primary = lists.primary.as_ptr();
        faults.weight = (*primary).total_weight == 0 || (primaries == 0) == sentinel.is_null();
        faults.single = ((*primary).single() != 0) != zone.is_single(primaries, backups);
    }
    faults
}
