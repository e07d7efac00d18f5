//! The way from the rules down to shared memory.

use crate::model::id::{Revision, ServerId, UpstreamIndex};
use crate::model::snapshot::{Method, Peer, Snapshot};

use super::command::Selector;
use super::error::OpError;
use super::guard::Guard;
use super::plan::Plan;

/// All upstreams of the http block.
pub trait Upstreams {
    /// How many there are.
    fn count(&self) -> usize;

    /// The upstream with this name, else the one whose zone has it.
    fn find(&self, name: &str) -> Option<UpstreamIndex>;

    /// A copy of an upstream, from one moment. None if there is no such upstream.
    fn snapshot(&self, upstream: UpstreamIndex) -> Option<Snapshot>;

    /// The same with no peers but those of these servers. None if there is no such upstream.
    fn only(&self, upstream: UpstreamIndex, ids: &[ServerId]) -> Option<Snapshot>;

    /// Look-ups to plan a change with.
    ///
    /// # Errors
    ///
    /// `OpError::Static` for an upstream that cannot be changed.
    fn lookup(&self, upstream: UpstreamIndex) -> Result<Box<dyn Lookup + '_>, OpError>;

    /// Makes a change, wholly or not at all. When it returns, every worker balances by it.
    ///
    /// # Errors
    ///
    /// `CommitError::Moved` if the upstream is no longer what the plan was made for.
    fn commit(&self, upstream: UpstreamIndex, plan: &Plan) -> Result<Committed, CommitError>;
}

/// A change that was made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Committed {
    /// Number of changes of the upstream now.
    pub revision: Revision,
    /// The ids of the servers that were added, in the order of the plan.
    pub added: Vec<ServerId>,
    /// How many servers there are now.
    pub left: usize,
}

/// Why a plan was not carried out; nothing was changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CommitError {
    /// Somebody else changed the upstream since: plan again.
    Moved,
    /// It cannot be done.
    Refused(OpError),
}

/// What a plan needs to know of one upstream.
pub trait Lookup {
    /// The change that the look-ups are true for.
    fn revision(&self) -> Revision;

    /// How often the lists of peers changed.
    fn membership(&self) -> u64;

    /// How the upstream chooses.
    fn method(&self) -> Method;

    /// Whether the method has a list of backups.
    fn has_backups(&self) -> bool;

    /// How many usable servers must be left by a change.
    fn guard(&self) -> Option<Guard>;

    /// All peers that are up: how many, and how many there are.
    fn usable(&self) -> (usize, usize);

    /// Sum of the weights of all peers.
    fn total_weight(&self) -> u64;

    /// The peers that the words choose, in nginx's order. Where a peer stands is only known if there are several.
    ///
    /// # Errors
    ///
    /// `OpError::Stuck`
    fn select(&self, selector: &Selector) -> Result<Vec<Peer>, OpError>;

    /// Puts peers of several choices into nginx's order.
    fn place(&self, peers: &mut [Peer]);
}
