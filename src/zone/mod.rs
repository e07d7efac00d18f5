//! nginx's live peers: the only room that names `ngx_http_upstream_rr_*`.
//!
//! A [`Zone`] reads the peers of one upstream into rows and changes their parameters. What differs between nginx
//! versions is behind [`backend::Backend`].

pub mod apply;
pub mod backend;
#[path = "slots/blanks.rs"]
pub mod blanks;
#[path = "slots/capacity.rs"]
pub mod capacity;
pub mod extra;
pub mod layout;
pub mod lock;
#[cfg(test)]
#[cfg(all(nginx_peer_refs, feature = "nginx-objs"))]
mod member_tests;
#[cfg(nginx_peer_refs)]
mod native;
pub mod peers;
pub mod prepared;
#[path = "slots/room.rs"]
pub mod room;
#[cfg(test)]
#[cfg(feature = "nginx-objs")]
#[path = "slots/tests.rs"]
mod slot_tests;
#[cfg(not(nginx_peer_refs))]
mod slots;
#[cfg(test)]
#[cfg(feature = "nginx-objs")]
mod tests;

/// The backend for the nginx that the module is compiled for.
#[cfg(nginx_peer_refs)]
pub type Current = native::Native;
/// The backend for the nginx that the module is compiled for.
#[cfg(not(nginx_peer_refs))]
pub type Current = slots::Slots;

pub use apply::{Edits, Fate, Setting};
pub use extra::{Departures, Extra};
pub use peers::{Chosen, Copy, Row, Zone};
pub use prepared::NewPeer;
