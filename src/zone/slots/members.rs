//! Who is in which slot, and what follows from that for a list.

use std::ptr::NonNull;

use crate::model::id::Group;
use crate::model::snapshot::{Faults, Zombies};

use super::super::backend::NoSeat;
use super::super::capacity::room::TEXT_SIZE;
use super::super::edits::{Edits, Fate, Touched};
use super::super::lock::{Lists, Writing};
use super::super::nginx_peers::RawPeer;
use super::super::peers::{ListMut, Peer, PeerMut};
use super::super::place::Spot;
use super::super::setting::{Abilities, set};
use super::blanks::{self, Own};
use super::prepared::Prepared;

/// What becomes of servers, by where they are.
type Fates = [(Spot, Fate<Prepared>)];

/// Finds a slot for each new server.
///
/// # Safety
///
/// The places in the edits are those of slots.
pub(super) unsafe fn seat<L>(lists: &Writing, edits: &mut Edits<Prepared, L>) -> Result<(), NoSeat> {
    let Edits { at, append, seats, .. } = edits;
    seats.clear();
    let Some(own) = Own::of(lists.zone()) else { return Ok(()) };
    let mut result = Ok(());
    for ((group, list), configured) in lists.iter().zip(own.configured()) {
        let arriving = append.iter().filter(|(of, _)| *of == group);
        let left = fates(at, group).filter(|(_, fate)| matches!(fate, Fate::Leave)).count();
        // One slot is kept for a server that changes its address, unless the zone had no room for it.
        let capacity = own.slots(group).saturating_sub(1).max(configured);
        let count = arriving.clone().count();
        let present = blanks::sums(lists.zone(), group, list).number as usize;
        if count > 0 && present + count > capacity + left {
            result = Err(NoSeat::Capacity(group, capacity));
        }
        let moving = fates(at, group).filter_map(|(_, fate)| match fate {
            Fate::Replace(prepared) => Some(prepared),
            Fate::Set(_) | Fate::Leave => None,
        });
        let new = moving.chain(arriving.map(|(_, prepared)| prepared));
        // SAFETY: see above.
        let places = unsafe { places(own, lists, group, at) };
        if !seat_in(own.is_narrow(), &places, new, seats) {
            let none = if own.is_narrow() {
                NoSeat::Memory(TEXT_SIZE)
            } else if places.clone().any(|slot| slot.conns() > 0) {
                NoSeat::Busy
            } else {
                NoSeat::Capacity(group, capacity)
            };
            result = result.and(Err(none));
        }
    }
    if lists.backup().is_none() && append.iter().any(|(group, _)| group.is_backup()) {
        result = Err(NoSeat::Capacity(Group::Backup, 0));
    }
    result
}

/// What becomes of the servers of a list.
fn fates(at: &Fates, group: Group) -> impl Iterator<Item = &(Spot, Fate<Prepared>)> + Clone {
    at.iter().filter(move |(spot, _)| spot.group == group)
}

/// Finds slots in one list, among `places`. False if some server has none.
fn seat_in<'a, 'b>(
    is_narrow: bool,
    places: &(impl Iterator<Item = Peer<'b>> + Clone),
    new: impl Iterator<Item = &'a Prepared> + Clone,
    seats: &mut Vec<NonNull<RawPeer>>,
) -> bool {
    let mut all = true;
    // A server that returns comes back to where it was, even if its last requests are still there.
    for prepared in new.clone() {
        let is_own = |slot: &Peer<'_>| prepared.was_in(*slot) && !seats.contains(&slot.raw());
        let own = places.clone().find(is_own);
        take(prepared, own, seats);
    }
    seats.sort_unstable();
    let returned = seats.len();
    let mut idle = places.clone().filter(|slot| slot.conns() == 0);
    for prepared in new.filter(|prepared| prepared.seat.get().is_none()) {
        let is_free =
            |slot: &Peer<'_>| seats.get(..returned).unwrap_or_default().binary_search(&slot.raw()).is_err();
        let slot = if is_narrow { None } else { idle.find(is_free) };
        take(prepared, slot, seats);
        all &= prepared.seat.get().is_some();
    }
    // `edit_list` looks for them, also if some server has none.
    seats.sort_unstable();
    all
}

/// Notes the slot that was found, if there is room to note it: nothing may be allocated.
fn take(prepared: &Prepared, slot: Option<Peer<'_>>, seats: &mut Vec<NonNull<RawPeer>>) {
    let slot = slot.filter(|_| seats.len() < seats.capacity()).map(Peer::raw);
    prepared.seat.set(slot);
    seats.extend(slot);
}

/// The slots of a list whose server leaves, and those that no server has.
///
/// # Safety
///
/// The places in the edits are those of slots.
unsafe fn places<'a>(
    own: Own<'a>,
    lists: &'a Lists,
    group: Group,
    at: &Fates,
) -> impl Iterator<Item = Peer<'a>> + Clone {
    let leaving = fates(at, group).filter(|(_, fate)| matches!(fate, Fate::Leave));
    // SAFETY: see above; slots are never freed.
    let leaving = leaving.filter_map(|(spot, _)| spot.peer).map(|place| unsafe { Peer::new(place.0) });
    leaving.chain(own.blanks(lists, group))
}

/// Makes the edits of one list. Each slot of the list stays there or becomes blank, once.
///
/// # Safety
///
/// Slots were found under these locks.
pub(super) unsafe fn edit_list<L>(
    lists: &Writing,
    group: Group,
    list: ListMut<'_>,
    abilities: Abilities,
    edits: &mut Edits<Prepared, L>,
    touched: &mut Touched,
) {
    let Some(own) = Own::of(lists.zone()) else { return };
    let has_fates = edits.at.iter().any(|(spot, _)| spot.group == group);
    if !has_fates && edits.append.iter().all(|(of, _)| *of != group) {
        return;
    }
    if !group.is_backup() {
        // `settle` links it again if no server comes.
        touched.members |= own.unlink_sentinel(lists);
    }
    // The slots that servers are to come into are left out, until the walk is over.
    let seats = &edits.seats;
    let is_seat = |slot: PeerMut<'_>| seats.binary_search(&slot.raw()).is_ok();
    own.chain(lists, group).take(is_seat, |_| ());
    let mut link = list.first();
    while let Some(slot) = link.get() {
        let is_it = |spot: &Spot| spot.group == group && spot.peer == Some(slot.place());
        match edits.at.iter_mut().find(|(spot, _)| is_it(spot)).map(|(_, fate)| fate) {
            Some(Fate::Leave) => {
                link.unlink();
                leave(lists, slot);
                touched.members = true;
                if !is_seat(slot) {
                    own.chain(lists, group).insert(slot);
                }
                continue;
            }
            Some(Fate::Set(setting)) => touched.weights |= set(list, slot, abilities, setting),
            Some(Fate::Replace(prepared)) => prepared.heir_of = Some(slot.raw()),
            None => {}
        }
        link = slot.link();
    }
    // SAFETY: see above.
    unsafe { bring_in(own, lists, group, list, edits, touched) };
}

/// Lets the new servers of one list come, after those that leave left.
///
/// # Safety
///
/// See [`edit_list`].
unsafe fn bring_in<L>(
    own: Own<'_>,
    lists: &Writing,
    group: Group,
    list: ListMut<'_>,
    edits: &mut Edits<Prepared, L>,
    touched: &mut Touched,
) {
    let mut near = list.first();
    for (_, fate) in edits.at.iter_mut().filter(|(spot, _)| spot.group == group) {
        let Fate::Replace(prepared) = fate else { continue };
        let is_old = |slot: PeerMut<'_>| Some(slot.raw()) == prepared.heir_of;
        // Mostly they are in the order of the list.
        let Some(link) = near.find(is_old).or_else(|| list.first().find(is_old)) else {
            // There is nobody to replace: nobody comes.
            // SAFETY: a slot that was found is never freed.
            if let Some(slot) = prepared.seat.take().map(|slot| unsafe { PeerMut::new(slot) }) {
                own.chain(lists, group).insert(slot);
            }
            continue;
        };
        near = link;
        // SAFETY: see above.
        let Some(new) = (unsafe { come(prepared) }) else { continue };
        if let Some(old) = link.unlink() {
            link.insert(new);
            leave(lists, old);
            own.chain(lists, group).insert(old);
            touched.members = true;
        }
    }
    let mut appended = edits.append.iter_mut().filter(|(of, _)| *of == group).peekable();
    if appended.peek().is_none() {
        return;
    }
    let mut link = near.end();
    for (_, prepared) in appended {
        // SAFETY: see above.
        if let Some(slot) = unsafe { come(prepared) } {
            link.insert(slot);
            link = slot.link();
            touched.members = true;
        }
    }
}

/// Lets a server come into the slot that was found for it.
///
/// # Safety
///
/// The write locks of both lists are held for `'a`, and the slot was found under them.
unsafe fn come<'a>(prepared: &mut Prepared) -> Option<PeerMut<'a>> {
    let slot = prepared.seat.take()?;
    // SAFETY: see above; slots are never freed.
    unsafe {
        let slot = PeerMut::new(slot);
        prepared.fill(slot);
        Some(slot)
    }
}

/// Makes a slot blank. What requests that use it refer to stays.
fn leave(lists: &Writing, slot: PeerMut<'_>) {
    if let Some(extra) = lists.zone().extra() {
        // SAFETY: the words live as long as the zone.
        unsafe { extra.as_ref() }.depart(slot.address());
    }
    slot.set_down(1);
    slot.set_weight(0);
    slot.set_effective_weight(0);
    slot.set_current_weight(0);
}

/// Makes what nginx counts of both lists exact, and `single`.
pub(super) fn settle(lists: &Writing) {
    let zone = lists.zone();
    let Some(own) = Own::of(zone) else { return };
    let mut counts = [0_usize; 2];
    for ((group, list), count) in lists.iter_mut().zip(&mut counts) {
        let (mut weight, mut usable) = (0_usize, 0_usize);
        for slot in lists.peers(*list).filter(|slot| !blanks::is_blank(zone, *slot)) {
            *count += 1;
            weight = weight.wrapping_add(slot.weight() as usize);
            usable += usize::from(slot.is_up());
        }
        list.set_number(own.number(group, *count));
        list.set_total_weight(weight);
        list.set_tries(usable);
        list.settle_weighted();
    }
    let [primaries, backups] = counts;
    own.set_backups(lists, backups);
    lists.primary_mut().set_single(zone.is_single(primaries, backups));
    if primaries == 0 {
        own.link_sentinel(lists);
    }
}

/// Counts the servers that left and still serve requests.
pub(super) fn zombies(lists: &Lists) -> Zombies {
    let mut found = Zombies::default();
    let Some(own) = Own::of(lists.zone()) else { return found };
    for slot in lists.iter().flat_map(|(group, _)| own.blanks(lists, group)) {
        let conns = slot.conns() as u64;
        found.peers += u64::from(conns > 0);
        found.conns = found.conns.wrapping_add(conns);
    }
    found
}

/// Looks for what must never be.
pub(super) fn faults(lists: &Lists) -> Faults {
    let (mut faults, zone) = (Faults::default(), lists.zone());
    let Some(own) = Own::of(zone) else { return faults };
    let mut counts = [0_usize; 2];
    let sentinel = own.sentinel();
    for ((group, list), servers) in lists.iter().zip(&mut counts) {
        let (mut length, mut blanks) = (0_usize, 0_usize);
        for slot in lists.peers(list) {
            length += 1;
            if blanks::is_blank(zone, slot) {
                faults.order |= Some(slot) != sentinel;
            } else {
                *servers += 1;
            }
        }
        for slot in own.blanks(lists, group) {
            blanks += 1;
            let wanted = isize::from(Some(slot) == sentinel);
            faults.blank |= slot.is_up() || slot.weight() != wanted;
        }
        faults.order |= length > *servers && *servers > 0;
        faults.length |= *servers + blanks != own.slots(group) || list.number() != own.number(group, length);
    }
    let [primaries, backups] = counts;
    let primary = lists.primary();
    faults.length |= own.backups() != backups;
    faults.weight = primary.total_weight() == 0 || (primaries == 0) == sentinel.is_none();
    faults.single = primary.is_single() != zone.is_single(primaries, backups);
    faults
}
