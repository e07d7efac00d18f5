//! Where a peer is: pointers to peers, for those who know them longer than a lock is held.
//!
//! A place is true while nginx's count of changes to the lists stays what it was when the place was found. Whoever uses
//! one holds the locks and compares the count first.

use std::ffi::c_void;
use std::ptr::NonNull;

use crate::model::id::Group;

use super::nginx_peers::{RawPeer, RawPeers};

/// A peer that is linked, or about to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place(pub(super) NonNull<RawPeer>);

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

impl Sums {
    /// What nginx counts of a list. Without its lock they are a guess.
    ///
    /// # Safety
    ///
    /// The list is mapped.
    pub(super) unsafe fn of(list: NonNull<RawPeers>) -> Self {
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
