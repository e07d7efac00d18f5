//! The slots that no server has. They are in no list of nginx's, so that nothing that walks the lists meets them, but in
//! chains of the module's own, one for the primaries and one for the backups.

use std::ptr::{self, NonNull};

use crate::model::id::Group;

use super::super::handle::Zone;
use super::super::nginx_peers::{RawPeer, RawPeers};
use super::super::peers::Peers;
use super::super::place::Sums;
use super::words::Words;

/// A slot.
type Peer = NonNull<RawPeer>;

impl Words {
    /// The module's words; none while the upstream is only read.
    pub(super) fn of(zone: &Zone) -> Option<NonNull<Self>> {
        // SAFETY: the words lie in the zone; only an address is taken.
        zone.extra().and_then(|extra| NonNull::new(unsafe { &raw mut (*extra.as_ptr()).own }))
    }

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
    unsafe fn chain(words: NonNull<Self>, group: Group) -> *mut *mut RawPeer {
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
    pub(super) unsafe fn link_sentinel(words: NonNull<Self>, primary: NonNull<RawPeers>) {
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
    pub(super) unsafe fn unlink_sentinel(words: NonNull<Self>, primary: NonNull<RawPeers>) -> bool {
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

/// What nginx counts of the servers of a list. Without the locks it is a guess.
///
/// # Safety
///
/// It is a list of the zone.
pub(super) unsafe fn sums(zone: &Zone, group: Group, list: NonNull<RawPeers>) -> Sums {
    // SAFETY: see above; the words live as long as the zone.
    let (sums, words) = unsafe { (Sums::of(list), Words::of(zone)) };
    let Some(words) = words else { return sums };
    // SAFETY: likewise.
    unsafe {
        if group.is_backup() {
            let number = (&raw const (*words.as_ptr()).backups).read_volatile() as u64;
            Sums { number, ..sums }
        } else {
            // The sentinel is no server.
            let sentinel = u64::from(!(&raw const (*words.as_ptr()).sentinel).read_volatile().is_null());
            let number = sums.number.saturating_sub(sentinel);
            Sums { number, weight: sums.weight.saturating_sub(sentinel), ..sums }
        }
    }
}

/// Whether the peer is a place that no server has.
#[inline]
pub(super) fn is_blank(zone: &Zone, peer: NonNull<RawPeer>) -> bool {
    // Outside a zone are no slots, but the servers of upstreams that nobody wrote, which nginx gives no weight.
    // SAFETY: slots are never freed. Both words change under the write locks; without them they are read late at
    // worst.
    unsafe {
        ((&raw const (*peer.as_ptr()).weight).read_volatile() == 0 && zone.pool().is_some())
            || Words::of(zone)
                .is_some_and(|words| (&raw const (*words.as_ptr()).sentinel).read_volatile() == peer.as_ptr())
    }
}
