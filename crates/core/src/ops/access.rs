//! The way from the rules down to shared memory.

use std::any::Any;

use crate::model::id::{Revision, ServerId, UpstreamIndex};
use crate::model::pools::Pools;
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

    /// The same, which must be there.
    ///
    /// # Errors
    ///
    /// `OpError::UpstreamNotFound`
    fn upstream(&self, name: &str) -> Result<UpstreamIndex, OpError> {
        self.find(name).ok_or_else(|| OpError::UpstreamNotFound(name.to_owned()))
    }

    /// A copy of the upstream with this name, from one moment.
    ///
    /// # Errors
    ///
    /// As [`Upstreams::snapshot`].
    fn named(&self, name: &str) -> Result<Snapshot, OpError> {
        self.snapshot(self.upstream(name)?)
    }

    /// The pools of an upstream, if it has pools in the place of servers: without a look at their servers one by one.
    fn pools(&self, upstream: UpstreamIndex) -> Option<Pools>;

    /// Whether there is memory for a copy of an upstream, a change of all its servers, and a reply about them.
    ///
    /// # Errors
    ///
    /// `OpError::NoMemory`
    fn room(&self, upstream: UpstreamIndex) -> Result<(), OpError>;

    /// Keeps so many bytes of memory back, until the result is dropped, for what must not fail. None if there are not as
    /// many.
    fn spare(&self, bytes: usize) -> Option<Box<dyn Any>>;

    /// A copy of an upstream, from one moment.
    ///
    /// # Errors
    ///
    /// `OpError::UpstreamNotFound` if there is no such upstream, `OpError::NoMemory` if there is no memory for it.
    fn snapshot(&self, upstream: UpstreamIndex) -> Result<Snapshot, OpError>;

    /// The same with no peers but those of these servers.
    ///
    /// # Errors
    ///
    /// As [`Upstreams::snapshot`].
    fn only(&self, upstream: UpstreamIndex, ids: &[ServerId]) -> Result<Snapshot, OpError>;

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

    /// All that the replacement of all servers is planned with, from one moment.
    ///
    /// # Errors
    ///
    /// `OpError::Static` for an upstream that cannot be changed, `OpError::Busy` if it was changed while it was looked at,
    /// `OpError::Reloaded` if the new configuration has other servers.
    fn whole(&self, upstream: UpstreamIndex) -> Result<Whole, OpError>;

    /// Makes more of what a commit of this part needs ready, at most for `limit` servers. True when all of it is.
    ///
    /// # Errors
    ///
    /// Why the commit would be refused.
    fn prepare(&self, part: &mut Part, limit: usize) -> Result<bool, OpError>;

    /// Makes the changes of several upstreams, each of them in one revision: all of them, or none. The parts were
    /// prepared; no upstream is among them twice.
    ///
    /// # Errors
    ///
    /// As [`Upstreams::commit`], with the place of the part that it is about.
    fn commit_all(&self, parts: &mut [Part]) -> Result<Vec<Committed>, (usize, CommitError)>;
}

/// An upstream as a replacement sees it.
#[derive(Clone, Debug)]
pub struct Whole {
    /// Its name.
    pub name: String,
    /// The change that this is true for.
    pub revision: Revision,
    /// How often the lists of peers changed.
    pub membership: u64,
    /// How the upstream chooses.
    pub method: Method,
    /// Whether the method has a list of backups.
    pub has_backups: bool,
    /// How many usable servers must be left by a change.
    pub guard: Option<Guard>,
    /// All peers, in nginx's order.
    pub peers: Vec<Peer>,
}

/// What is to be done to one of several upstreams.
pub struct Part {
    /// The upstream.
    pub upstream: UpstreamIndex,
    /// What is to be done.
    pub plan: Plan,
    /// What was made ready for it; the implementation knows what that is. Dropped, it gives back what it holds.
    pub ready: Option<Box<dyn Any>>,
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
    /// `OpError::Stuck`, or `OpError::Reloaded` if the new configuration may have such peers.
    fn select(&self, selector: &Selector) -> Result<Vec<Peer>, OpError>;

    /// Puts peers of several choices into nginx's order.
    fn place(&self, peers: &mut [Peer]);
}
