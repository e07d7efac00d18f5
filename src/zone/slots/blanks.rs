//! The slots that no server has. They are in no list of nginx's, so that nothing that walks the lists meets them, but in
//! chains of the module's own, one for the primaries and one for the backups.

use std::ptr::{self, NonNull};

use nginx_sys::{ngx_http_upstream_rr_peer_t, ngx_http_upstream_rr_peers_t};

use crate::model::id::Group;

use super::super::capacity::{Planned, blanks, texts};
use super::super::peers::{Peers, Zone};
use super::members::settle;
use super::{Slots, Words};

/// A slot.
type Peer = NonNull<ngx_http_upstream_rr_peer_t>;

/// Peers for which nginx has room in any request to note that they were tried: a word of 64 bits in the request's own
/// data. Beyond that it allocates as much as the larger of both lists needs when the request begins.
const ALWAYS_NOTED: usize = 64;

impl Words {
    /// Slots of a list, filled and blank.
    ///
    /// # Safety
    ///
    /// The words lie in a zone that is mapped.
    pub(super) unsafe fn slots(words: NonNull<Self>, group: Group) -> usize {
        // SAFETY: see above; the number is written once, before the workers start.
        let [primaries, backups] = unsafe { (*words.as_ptr()).slots };
        if group.is_backup() { backups } else { primaries }
    }

    /// The link to the first blank slot of a list.
    ///
    /// # Safety
    ///
    /// The words lie in a zone that is mapped.
    unsafe fn chain(words: NonNull<Self>, group: Group) -> *mut *mut ngx_http_upstream_rr_peer_t {
        let words = words.as_ptr();
        // SAFETY: see above; only an address is taken.
        unsafe { if group.is_backup() { &raw mut (*words).blanks[1] } else { &raw mut (*words).blanks[0] } }
    }

    /// The blank slots of a list: those of the chain, and the sentinel.
    ///
    /// # Safety
    ///
    /// The locks of both lists are held for as long as the iterator is used.
    pub(super) unsafe fn blanks(words: NonNull<Self>, group: Group) -> impl Iterator<Item = Peer> + Clone {
        // SAFETY: see above; slots are never freed.
        let (chain, sentinel) =
            unsafe { (Peers::starting(*Self::chain(words, group)), Self::sentinel(words)) };
        chain.chain(sentinel.filter(|_| !group.is_backup()))
    }

    /// The blank slot that is linked among the primaries.
    ///
    /// # Safety
    ///
    /// The lock of the primaries is held.
    pub(super) unsafe fn sentinel(words: NonNull<Self>) -> Option<Peer> {
        // SAFETY: see above.
        NonNull::new(unsafe { (*words.as_ptr()).sentinel })
    }

    /// Puts a blank slot, which is linked nowhere, into its chain.
    ///
    /// # Safety
    ///
    /// The write locks of both lists are held.
    pub(super) unsafe fn put(words: NonNull<Self>, group: Group, slot: Peer) {
        // SAFETY: see above.
        unsafe {
            let chain = Self::chain(words, group);
            (*slot.as_ptr()).next = *chain;
            *chain = slot.as_ptr();
        }
    }

    /// Takes those slots out of the chain that are `wanted`.
    ///
    /// # Safety
    ///
    /// The write locks of both lists are held.
    pub(super) unsafe fn take(words: NonNull<Self>, group: Group, wanted: impl Fn(&Peer) -> bool) {
        // SAFETY: see above; slots are never freed.
        unsafe {
            let mut link = Self::chain(words, group);
            while let Some(slot) = NonNull::new(*link) {
                if wanted(&slot) {
                    *link = (*slot.as_ptr()).next;
                } else {
                    link = &raw mut (*slot.as_ptr()).next;
                }
            }
        }
    }

    /// Links a blank slot as the only primary, with a weight of 1: some balancers divide by the sum of the weights, and
    /// all of them look at the first of the list.
    ///
    /// # Safety
    ///
    /// The write locks of both lists are held, and the list of primaries has no server.
    pub(super) unsafe fn link_sentinel(words: NonNull<Self>, primary: NonNull<ngx_http_upstream_rr_peers_t>) {
        // SAFETY: see above. The chain has all slots of the list, of which there is at least the one that nginx refuses
        // to be without.
        unsafe {
            let (list, chain) = (primary.as_ptr(), Self::chain(words, Group::Primary));
            let words = words.as_ptr();
            if (*words).sentinel.is_null()
                && let Some(slot) = NonNull::new(*chain)
            {
                *chain = (*slot.as_ptr()).next;
                (*slot.as_ptr()).next = ptr::null_mut();
                (*slot.as_ptr()).weight = 1;
                (*list).peer = slot.as_ptr();
                (*words).sentinel = slot.as_ptr();
            }
            (*list).number = 1;
            (*list).total_weight = 1;
        }
    }

    /// Makes the sentinel a blank slot like the others. False if there is none.
    ///
    /// # Safety
    ///
    /// The write locks of both lists are held.
    pub(super) unsafe fn unlink_sentinel(
        words: NonNull<Self>,
        primary: NonNull<ngx_http_upstream_rr_peers_t>,
    ) -> bool {
        // SAFETY: see above; while there is a sentinel it is the only one of the list.
        unsafe {
            let Some(slot) = Self::sentinel(words) else { return false };
            (*primary.as_ptr()).peer = ptr::null_mut();
            (*slot.as_ptr()).weight = 0;
            (*words.as_ptr()).sentinel = ptr::null_mut();
            Self::put(words, Group::Primary, slot);
        }
        true
    }
}

/// Makes the slots of both lists, as many of those that were planned as the zone has room for; false if it has none for
/// some, or for the texts of other servers.
///
/// # Safety
///
/// Called by the master, in `init_module`, with the module's words in the zone: nobody else uses the lists.
pub(super) unsafe fn begin(zone: &Zone, planned: Planned) -> bool {
    let Some((words, pool)) = Slots::words(zone).zip(zone.pool()) else { return false };
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
