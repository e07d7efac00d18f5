//! The slots that no server has. They are in no list of nginx's, so that nothing that walks the lists meets them, but in
//! chains of the module's own, one for the primaries and one for the backups.

use std::marker::PhantomData;
use std::ptr::{self, NonNull};
use std::sync::atomic::AtomicU64;

use crate::model::id::Group;

use super::super::extra::own;
use super::super::handle::Zone;
use super::super::lock::{Lists, Writing};
use super::super::nginx_peers::RawPeer;
use super::super::peers::{Link, List, Peer, PeerMut, Peers};
use super::super::sums::Sums;
use super::words::Words;

/// The module's words in a zone, which live as long as the zone.
#[derive(Clone, Copy)]
pub(super) struct Own<'a>(NonNull<Words>, PhantomData<&'a Words>);

impl<'a> Own<'a> {
    /// The words; none while the upstream is only read.
    #[inline]
    pub(super) fn of(zone: &'a Zone) -> Option<Self> {
        Some(Self(NonNull::new(own(zone.extra()?))?, PhantomData))
    }

    /// As they lie there.
    pub(super) fn raw(self) -> *mut Words {
        self.0.as_ptr()
    }

    /// How often the lists changed.
    pub(super) fn membership(self) -> &'a AtomicU64 {
        // SAFETY: the words live as long as the zone, and this one is atomic.
        unsafe { &(*self.raw()).membership }
    }

    /// Slots of a list, filled and blank.
    pub(super) fn slots(self, group: Group) -> usize {
        // SAFETY: the number is written once, before the workers start.
        let [primaries, backups] = unsafe { (*self.raw()).slots };
        if group.is_backup() { backups } else { primaries }
    }

    /// How many primaries and backups there were at the start.
    pub(super) fn configured(self) -> [usize; 2] {
        // SAFETY: likewise.
        unsafe { (*self.raw()).configured }
    }

    /// What nginx is told to be the number of a list that has so many servers.
    pub(super) fn number(self, group: Group, servers: usize) -> usize {
        // SAFETY: likewise.
        if group.is_backup() { servers.max(unsafe { (*self.raw()).noted }) } else { servers }
    }

    /// Whether some slots have less room for a text than others.
    pub(super) fn is_narrow(self) -> bool {
        // SAFETY: likewise.
        unsafe { (*self.raw()).narrow }
    }

    /// How many backups there are. Without the locks it is a guess.
    pub(super) fn backups(self) -> usize {
        // SAFETY: the words live as long as the zone.
        unsafe { (&raw const (*self.raw()).backups).read_volatile() }
    }

    /// Notes how many backups there are.
    pub(super) fn set_backups(self, _lists: &Writing, backups: usize) {
        // SAFETY: likewise; the write locks are held, which guard the word.
        unsafe { (&raw mut (*self.raw()).backups).write_volatile(backups) };
    }

    /// The blank slot that is linked among the primaries. Without the lock it is a guess.
    #[inline]
    pub(super) fn sentinel(self) -> Option<Peer<'a>> {
        // SAFETY: likewise.
        let sentinel = unsafe { (&raw const (*self.raw()).sentinel).read_volatile() };
        // SAFETY: slots are never freed.
        NonNull::new(sentinel).map(|slot| unsafe { Peer::new(slot) })
    }

    /// Notes which slot that is.
    fn set_sentinel(self, _lists: &Writing, slot: Option<PeerMut<'_>>) {
        let slot = slot.map_or(ptr::null_mut(), |slot| slot.raw().as_ptr());
        // SAFETY: likewise; the write locks are held, which guard the word.
        unsafe { (&raw mut (*self.raw()).sentinel).write_volatile(slot) };
    }

    /// Where the pointer to the first blank slot of a list is.
    fn first(self, group: Group) -> NonNull<*mut RawPeer> {
        // SAFETY: the words live as long as the zone; only an address is taken, of which there is one for each list.
        unsafe {
            let first = (&raw mut (*self.raw()).blanks).cast::<*mut RawPeer>();
            NonNull::new_unchecked(first.add(usize::from(group.is_backup())))
        }
    }

    /// The blank slots of a list: those of the chain, and the sentinel.
    pub(super) fn blanks<'l>(self, _lists: &'l Lists, group: Group) -> impl Iterator<Item = Peer<'l>> + Clone
    where
        'a: 'l,
    {
        // SAFETY: the locks are held, which guard the chain; slots are never freed.
        let chain = unsafe { Peers::starting(self.first(group).read()) };
        let sentinel: Option<Peer<'l>> = self.sentinel();
        chain.chain(sentinel.filter(|_| !group.is_backup()))
    }

    /// The chain of the blank slots of a list.
    pub(super) fn chain<'l>(self, _lists: &'l Writing, group: Group) -> Link<'l> {
        // SAFETY: the write locks are held, which guard the chain; slots are never freed.
        unsafe { Link::new(self.first(group)) }
    }

    /// Links a blank slot as the only primary, with a weight of 1: some balancers divide by the sum of the weights, and
    /// all of them look at the first of the list. The list has no server.
    pub(super) fn link_sentinel(self, lists: &Writing) {
        let list = lists.primary_mut();
        // The chain has all slots of the list, of which there is at least the one that nginx refuses to be without.
        if self.sentinel().is_none()
            && let Some(slot) = self.chain(lists, Group::Primary).unlink()
        {
            slot.link().set(None);
            slot.set_weight(1);
            list.first().set(Some(slot));
            self.set_sentinel(lists, Some(slot));
        }
        list.set_number(1);
        list.set_total_weight(1);
    }

    /// Makes the sentinel a blank slot like the others. False if there is none.
    pub(super) fn unlink_sentinel(self, lists: &Writing) -> bool {
        if self.sentinel().is_none() {
            return false;
        }
        // While there is a sentinel it is the only one of the list.
        if let Some(slot) = lists.primary_mut().first().unlink() {
            slot.set_weight(0);
            self.set_sentinel(lists, None);
            self.chain(lists, Group::Primary).insert(slot);
        }
        true
    }
}

/// What nginx counts of the servers of a list of the zone. Without the locks it is a guess.
pub(super) fn sums(zone: &Zone, group: Group, list: List<'_>) -> Sums {
    let sums = Sums::of(list);
    let Some(own) = Own::of(zone) else { return sums };
    if group.is_backup() {
        return Sums { number: own.backups() as u64, ..sums };
    }
    // The sentinel is no server.
    let sentinel = u64::from(own.sentinel().is_some());
    let (number, weight) = (sums.number.saturating_sub(sentinel), sums.weight.saturating_sub(sentinel));
    Sums { number, weight, ..sums }
}

/// Whether the peer is a place that no server has. Both words change under the write locks; without them they are read
/// late at worst.
#[inline]
pub(super) fn is_blank(zone: &Zone, peer: Peer<'_>) -> bool {
    // Outside a zone are no slots, but the servers of upstreams that nobody wrote, which nginx gives no weight.
    (peer.weight() == 0 && zone.pool().is_some())
        || Own::of(zone).and_then(Own::sentinel).is_some_and(|sentinel| sentinel == peer)
}
