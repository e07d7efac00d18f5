//! The kind of nginx that the module is compiled for.

use super::backend::Backend;
use super::edits;

/// The backend.
#[cfg(nginx_peer_refs)]
pub type Current = super::native::Native;
/// The backend.
#[cfg(not(nginx_peer_refs))]
pub type Current = super::slots::Slots;

/// A server that is ready to be linked.
pub type Prepared = <Current as Backend>::Prepared;
/// What a worker's balancer computed from the lists and would never compute again.
pub type Tables = <Current as Backend>::Tables;
/// A list of backups that is ready to be linked.
pub type PreparedList = <Current as Backend>::PreparedList;
/// What becomes of the peer at one place.
pub type Fate = edits::Fate<Prepared>;
/// A change of the lists.
pub type Edits = edits::Edits<Prepared, PreparedList>;
