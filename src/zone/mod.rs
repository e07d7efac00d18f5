//! nginx's live peers: the only room that names `ngx_http_upstream_rr_*`.
//!
//! A [`Zone`] reads the peers of one upstream into rows and changes their parameters. What differs between nginx
//! versions is behind [`backend::Backend`].

pub mod apply;
pub mod backend;
pub mod capacity;
pub mod census;
pub mod extra;
pub mod layout;
pub mod lock;
#[cfg(nginx_peer_refs)]
mod native;
pub mod peers;
pub mod place;
pub mod prepared;
#[cfg(not(nginx_peer_refs))]
mod slots;
#[cfg(test)]
#[cfg(feature = "nginx-objs")]
pub(crate) mod tests;

/// The backend for the nginx that the module is compiled for.
#[cfg(nginx_peer_refs)]
pub type Current = native::Native;
/// The backend for the nginx that the module is compiled for.
#[cfg(not(nginx_peer_refs))]
pub type Current = slots::Slots;

/// A server that is ready to be linked.
pub type Prepared = <Current as backend::Backend>::Prepared;
/// What a worker's balancer computed from the lists and would never compute again.
pub type Tables = <Current as backend::Backend>::Tables;
/// A list of backups that is ready to be linked.
pub type PreparedList = <Current as backend::Backend>::PreparedList;

pub use apply::{Edits, Fate, Setting};
pub use backend::NoSeat;
pub use census::Census;
pub use extra::Extra;
pub use lock::Lists;
pub use peers::{Chosen, Copy, Row, Zone};
pub use place::{Place, Spot};
