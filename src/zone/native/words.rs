//! What the module keeps in the zone of an upstream on this kind of nginx.

use super::super::nginx_peers::RawPeer;

/// A peer that left, or null.
pub(super) type Zombie = *mut RawPeer;

/// What the module keeps in the zone of an upstream.
#[repr(C)]
pub struct Words {
    /// Peers that left the primaries, and those that left the backups, and may still be in use, linked by their `next`:
    /// guarded by the write locks of both lists. The module holds a reference to each.
    pub(super) zombies: [Zombie; 2],
}
