//! What the module keeps in the zone of an upstream on this kind of nginx.

use std::sync::atomic::AtomicU64;

use super::super::nginx_peers::{RawPeer, RawPeers};

/// What the module keeps in the zone of an upstream.
#[repr(C)]
pub struct Words {
    /// How often the lists changed.
    pub(super) membership: AtomicU64,
    /// The blank slots of the primaries and of the backups, linked by their `next`: guarded by the locks of both lists.
    pub(super) blanks: [*mut RawPeer; 2],
    /// The one blank slot that is linked among the primaries, with a weight of 1, while they have no server. Guarded
    /// likewise.
    pub(super) sentinel: *mut RawPeer,
    /// How many backups there are. Guarded likewise.
    pub(super) backups: usize,
    /// How many slots the primaries and the backups have, filled and blank.
    pub(super) slots: [usize; 2],
    /// How many of each had a server at the start.
    pub(super) configured: [usize; 2],
    /// The larger number of slots, if nginx has to be told to make room in requests for so many; else 0.
    pub(super) noted: usize,
    /// The list of backups, where nginx made none.
    pub(super) list: RawPeers,
    /// Whether some slots have less room for a text than `TEXT_SIZE`, since the zone was full.
    pub(super) narrow: bool,
}
