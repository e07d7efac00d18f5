//! What operators want, in the module's own shared zone, which survives reloads.
//!
//! The zone holds a header and a record for each upstream, with a record for each of its servers ([`records`]). All
//! of it is read and written under the mutex of the zone's slab pool, which nginx's master opens again when a worker
//! dies with it ([`lock`]). A change is published by one word, the revision of its upstream; what a dead worker left
//! half-written is never seen ([`commit`]). Records hold pointers into the zone only, which every process of every
//! generation has mapped at the same address, and no pointer to code or to a heap.

pub mod adopt;
pub mod commit;
mod death;
pub mod find;
mod index;
mod inherit;
mod lease;
mod lock;
pub mod lost;
mod memory;
#[cfg(test)]
#[cfg(feature = "nginx-objs")]
mod memory_tests;
#[cfg(test)]
#[cfg(feature = "nginx-objs")]
mod model_tests;
pub mod peers;
pub mod records;
mod recover;
pub mod size;
#[cfg(test)]
#[cfg(feature = "nginx-objs")]
mod tests;

pub use lock::{AT_ONCE, Holder, Locked, PATIENCE, SOON, Store};
pub use memory::Full;
pub use records::Upstream;
