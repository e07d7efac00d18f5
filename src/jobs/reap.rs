//! Frees peers that left, also where no change and no request comes by.

use crate::model::id::UpstreamIndex;
use crate::ops::job::{Job, Upkeep};

/// Goes through all upstreams.
pub struct Reap {
    /// The upstreams.
    upkeep: &'static dyn Upkeep,
    /// The next one of the round.
    next: usize,
}

impl Reap {
    /// The job.
    pub fn new(upkeep: &'static dyn Upkeep) -> Self {
        Self { upkeep, next: 0 }
    }
}

impl Job for Reap {
    fn begin(&mut self) {
        self.next = 0;
    }

    fn step(&mut self) -> bool {
        if self.next >= self.upkeep.count() {
            return false;
        }
        self.upkeep.reap(UpstreamIndex(self.next));
        self.next += 1;
        true
    }
}
