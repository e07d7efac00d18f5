//! A change of the lists.

use std::ptr::NonNull;

use crate::model::id::Group;

use super::nginx_peers::RawPeer;
use super::place::{Place, Spot};
use super::setting::Setting;

/// What becomes of the peer at one place.
pub enum Fate<P> {
    /// It gets other parameters, or another state.
    Set(Setting),
    /// It leaves.
    Leave,
    /// It leaves, and this one takes its place.
    Replace(P),
}

/// A change of the lists: of peers that are there, each at most once, and servers that become the last of their list.
/// Many are found sooner in nginx's order.
pub struct Edits<P, L> {
    /// What becomes of peers.
    pub at: Vec<(Spot, Fate<P>)>,
    /// New servers.
    pub append: Vec<(Group, P)>,
    /// Peers of the primaries and of the backups that are probably the last ones.
    pub last: [Option<Place>; 2],
    /// A list of backups, in case that there is none.
    pub backups: Option<L>,
    /// The places that were found for new servers, by address.
    pub(super) seats: Vec<NonNull<RawPeer>>,
    /// What finds new servers among those that left, in order, each with its place among the edits: in `at`, and behind
    /// it in `append`.
    pub(super) keys: Vec<(u64, usize)>,
}

impl<P, L> Default for Edits<P, L> {
    fn default() -> Self {
        let (at, append, seats, keys) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
        Self { at, append, last: [None; 2], backups: None, seats, keys }
    }
}

/// What edits touched.
#[derive(Clone, Copy, Default)]
pub struct Touched {
    /// A weight.
    pub(super) weights: bool,
    /// The members of a list.
    pub(super) members: bool,
}
