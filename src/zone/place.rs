//! Where a peer is: pointers to peers, for those who know them longer than a lock is held.
//!
//! A place is true while nginx's count of changes to the lists stays what it was when the place was found. Whoever uses
//! one holds the locks and compares the count first.

use std::ffi::c_void;
use std::ptr::NonNull;

use nginx_sys::{ngx_http_upstream_rr_peer_t, ngx_http_upstream_rr_peers_t};

use crate::model::id::{Group, Slot};

use super::Current;
use super::backend::Backend;
use super::lock::Lists;
use super::peers::{Copy, Zone, bytes, row};

/// A peer that is linked, or about to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place(pub(super) NonNull<ngx_http_upstream_rr_peer_t>);

impl Place {
    /// The place that was kept as a pointer; none for null.
    pub fn from_ptr(peer: *mut c_void) -> Option<Self> {
        NonNull::new(peer.cast()).map(Self)
    }

    /// The place as a pointer.
    pub fn as_ptr(self) -> *mut c_void {
        self.0.as_ptr().cast()
    }
}

/// Whom an edit is about.
#[derive(Clone, Copy, Debug)]
pub struct Spot {
    /// The list.
    pub group: Group,
    /// The peer; none until it was found, under the locks.
    pub peer: Option<Place>,
    /// The peer that is probably the one before it.
    pub before: Option<Place>,
}

impl Spot {
    /// One whose peer is yet to be found.
    pub fn unknown(group: Group) -> Self {
        Self { group, peer: None, before: None }
    }
}

/// What nginx counts of an upstream, or of one of its lists.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sums {
    /// Peers.
    pub number: u64,
    /// Those that are not down.
    pub usable: u64,
    /// Sum of the weights.
    pub weight: u64,
}

impl Zone {
    /// Each peer: its list, its text, its address, and its place. Primaries first, in nginx's order.
    pub fn each<'a>(
        &'a self,
        lists: &'a Lists,
    ) -> impl Iterator<Item = (Group, &'a [u8], &'a [u8], Place)> + use<'a> {
        lists.iter().flat_map(move |(group, list)| {
            self.servers(list).map(move |peer| {
                // SAFETY: the locks are held for 'a, so that linked peers and their texts stay.
                let (server, name) =
                    unsafe { (bytes(&(*peer.as_ptr()).server), bytes(&(*peer.as_ptr()).name)) };
                (group, server, name, Place(peer))
            })
        })
    }

    /// The primary at a position, from 0, and its address.
    pub fn nth<'a>(&'a self, lists: &'a Lists, position: usize) -> Option<(Place, &'a [u8])> {
        self.servers(lists.primary).nth(position).map(|peer| {
            // SAFETY: likewise.
            (Place(peer), unsafe { bytes(&(*peer.as_ptr()).name) })
        })
    }

    /// Copies one peer out, within the room that `copy` has; false if it has none. `slot` is where it is said to stand.
    ///
    /// # Safety
    ///
    /// `lists` are the locks of this zone, and the place was found at the present count of changes.
    pub unsafe fn copy_one(&self, _lists: &Lists, place: Place, slot: Slot, copy: &mut Copy) -> bool {
        // SAFETY: see above: the peer is linked, and stays so while the locks are held.
        unsafe {
            let peer = place.0.as_ref();
            let text = peer.name.len.saturating_add(peer.server.len);
            let fits = copy.rows.len() < copy.rows.capacity()
                && copy.text.capacity().saturating_sub(copy.text.len()) >= text;
            if fits {
                let row = row(place.0, slot, &mut copy.text);
                copy.rows.push(row);
            }
            fits
        }
    }

    /// Notes what the lists say of the whole of themselves.
    pub fn copy_sums(&self, lists: &Lists, copy: &mut Copy) {
        // SAFETY: the locks are held.
        copy.single = unsafe { (*lists.primary.as_ptr()).single() } != 0;
        copy.membership = self.membership();
    }

    /// What nginx counts of both lists.
    pub fn sums(&self, lists: &Lists) -> Sums {
        lists.iter().fold(Sums::default(), |sums, (group, list)| {
            // SAFETY: the locks are held.
            let of_list = unsafe { Current::sums(self, group, list) };
            Sums {
                number: sums.number.wrapping_add(of_list.number),
                usable: sums.usable.wrapping_add(of_list.usable),
                weight: sums.weight.wrapping_add(of_list.weight),
            }
        })
    }
}

impl Sums {
    /// What nginx counts of a list. Without its lock they are a guess.
    ///
    /// # Safety
    ///
    /// The list is mapped.
    pub(super) unsafe fn of(list: NonNull<ngx_http_upstream_rr_peers_t>) -> Self {
        let list = list.as_ptr();
        // SAFETY: see above; each is a word.
        unsafe {
            Self {
                number: (&raw const (*list).number).read_volatile() as u64,
                usable: (&raw const (*list).tries).read_volatile() as u64,
                weight: (&raw const (*list).total_weight).read_volatile() as u64,
            }
        }
    }
}
