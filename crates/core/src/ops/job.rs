//! Work that no request asks for.
//!
//! There are two kinds of jobs: of the configuration, which one worker does for all, and of the worker, which each does
//! for itself.

use crate::model::id::UpstreamIndex;

/// Work that is done again and again, in slices between which the worker serves others.
pub trait Job {
    /// Time between the beginnings of two rounds, in milliseconds.
    fn period(&self) -> u64;

    /// Begins a round.
    fn begin(&mut self);

    /// Does a little of the round, much less than a millisecond's worth. False when the round is done.
    fn step(&mut self) -> bool;
}

/// The jobs of the configuration. The numbers lie in shared memory, so that none is used again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum JobKind {
    /// To free peers that left.
    Reap = 0,
}

/// What jobs of the configuration do to the upstreams.
pub trait Upkeep {
    /// How many upstreams there are.
    fn count(&self) -> usize;

    /// Frees the peers of an upstream that left and that no request uses any more.
    fn reap(&self, upstream: UpstreamIndex);

    /// Whether this process is to do a job until it asks again, `period` milliseconds after `now` on nginx's clock. False
    /// if another process does it, or if nobody may because a newer configuration runs.
    fn may_do(&self, kind: JobKind, now: u64, period: u64) -> bool;
}
