//! Slots are made when nginx starts.

use std::ptr::NonNull;

use super::super::capacity::{Planned, blanks, texts};
use super::super::handle::Zone;
use super::super::peers::Peers;
use super::members::settle;
use super::words::Words;

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
    let Some((words, pool)) = Words::of(zone).zip(zone.pool()) else { return false };
    let (own, primary) = (words.as_ptr(), zone.primary.as_ptr());
    // SAFETY: see above. A list of peers is plain words, for which the zeroes in the zone are a start.
    unsafe {
        (*own).narrow = !texts::ready(zone);
        let lists = [Some(zone.primary), NonNull::new((*primary).next)];
        let [primaries, backups] = lists.map(|list| list.map_or(0, |list| Peers::of(list).count()));
        let [planned_primaries, planned_backups] = planned;
        let blank_primaries = blanks::make(pool, planned_primaries.saturating_sub(primaries));
        let blank_backups = blanks::make(pool, planned_backups.saturating_sub(backups));
        let slots = [primaries + blank_primaries.count, backups + blank_backups.count];
        (*own).configured = [primaries, backups];
        (*own).blanks = [blank_primaries.first, blank_backups.first];
        (*own).slots = slots;
        let [primaries, backups] = slots;
        let most = primaries.max(backups);
        (*own).noted = if most > ALWAYS_NOTED { most } else { 0 };
        if (*primary).next.is_null() && (backups > 0 || (*own).noted > 0) {
            let backups = &raw mut (*own).list;
            (*backups).name = (*primary).name;
            (*backups).shpool = (*primary).shpool;
            (*primary).next = backups;
        }
        if let Some(lists) = zone.write() {
            settle(zone, &lists);
        }
        !(*own).narrow && primaries >= planned_primaries && backups >= planned_backups
    }
}
