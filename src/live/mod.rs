//! Store and zone as one: what the rules ask of shared memory, with the order of its locks.
//!
//! Locks are taken in this order: the store's mutex, the lists of primaries and of backups, a peer, the slab of the
//! zone. Every change of a store ends with its application to the zone of this process; a process that finds a store
//! ahead of its zone, because another died in between or belongs to another configuration, applies the difference.

mod catalogue;
mod catch_up;
mod change;
mod follow;
mod known;
mod lookup;
mod pools;
mod room;
mod start;
#[cfg(test)]
#[cfg(feature = "nginx-objs")]
mod tests;
mod upstream;
mod view;

pub use catalogue::Live;
pub use follow::follow;
pub use pools::{Member, Pools};
pub use start::close;
pub use upstream::{Control, Upstream};
