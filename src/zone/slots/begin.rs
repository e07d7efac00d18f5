//! Slots are made when nginx starts.

use std::ptr;

use super::super::capacity::{Planned, blanks, texts};
use super::super::handle::Zone;
use super::super::nginx_peers::RawPeers;
use super::blanks::Own;
use super::members::settle;

/// Peers for which nginx has room in any request to note that they were tried: a word of 64 bits in the request's own
/// data. Beyond that it allocates as much as the larger of both lists needs when the request begins.
const ALWAYS_NOTED: usize = 64;

/// Makes the slots of both lists, as many of those that were planned as the zone has room for; false if it has none for
/// some, or for the texts of other servers.
///
/// # Safety
///
/// Called by the master, in `init_module`, with the module's words in the zone: nobody else uses the lists.
pub(super) unsafe fn begin(zone: &Zone, planned: Planned) -> bool {
    let Some((own, pool)) = Own::of(zone).zip(zone.pool()) else { return false };
    // SAFETY: see above.
    let is_narrow = unsafe { !texts::ready(zone) };
    let Some(lists) = zone.write() else { return false };
    let count = |list| lists.peers(list).count();
    let configured = [count(lists.primary()), lists.backup().map_or(0, count)];
    let mut slots = configured;
    let mut chains = [ptr::null_mut(); 2];
    for ((slots, chain), planned) in slots.iter_mut().zip(&mut chains).zip(planned) {
        // SAFETY: the pool is mapped as long as the zone.
        let blanks = unsafe { blanks::make(pool, planned.saturating_sub(*slots)) };
        *slots += blanks.count;
        *chain = blanks.first;
    }
    let [primaries, backups] = slots;
    let most = primaries.max(backups);
    let noted = if most > ALWAYS_NOTED { most } else { 0 };
    let own = own.raw();
    // SAFETY: see above: the words are this function's.
    unsafe {
        (*own).narrow = is_narrow;
        (*own).configured = configured;
        (*own).blanks = chains;
        (*own).slots = slots;
        (*own).noted = noted;
    }
    let has_list = lists.backup().is_some();
    drop(lists);
    if !has_list && (backups > 0 || noted > 0) {
        // SAFETY: see above.
        unsafe { link_backups(zone, &raw mut (*own).list) };
    }
    if let Some(lists) = zone.write() {
        settle(&lists);
    }
    let [planned_primaries, planned_backups] = planned;
    !is_narrow && primaries >= planned_primaries && backups >= planned_backups
}

/// Links an empty list of backups behind the primaries. A list of peers is plain words, for which zeroes are a start.
///
/// # Safety
///
/// The list is zeroes in the zone, and nobody else uses the lists.
unsafe fn link_backups(zone: &Zone, backups: *mut RawPeers) {
    let primary = zone.primary().raw().as_ptr();
    // SAFETY: see above.
    unsafe {
        (*backups).name = (*primary).name;
        (*backups).shpool = (*primary).shpool;
        (*primary).next = backups;
    }
}
