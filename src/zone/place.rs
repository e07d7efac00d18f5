//! Where a peer is: pointers to peers, for those who know them longer than a lock is held.
//!
//! A place is true while nginx's count of changes to the lists stays what it was when the place was found. Whoever uses
//! one holds the locks and compares the count first.

use std::ffi::c_void;
use std::ptr::NonNull;

use crate::model::id::Group;

use super::nginx_peers::RawPeer;

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
