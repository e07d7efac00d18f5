//! Frees peers that left, also where no change and no request comes by.

use std::rc::Rc;

use crate::model::id::UpstreamIndex;
use crate::ops::job::{Job, Upkeep};

/// Goes through all upstreams.
pub struct Reap {
    /// The upstreams.
    upkeep: Rc<dyn Upkeep>,
    /// The next one of the round.
    next: usize,
}

impl Reap {
    /// The job.
    pub fn new(upkeep: Rc<dyn Upkeep>) -> Self {
        Self { upkeep, next: 0 }
    }
}

impl Job for Reap {
    fn period(&self) -> u64 {
        1_000
    }

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
