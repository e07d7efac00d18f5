//! A job of each worker: it closes its idle connections to servers that left, where no request looks at them.

use std::rc::Rc;

use crate::ops::job::Job;

use super::hook::Hook;

/// Goes through all upstreams.
pub struct Look {
    /// Their hooks.
    hooks: Vec<Rc<Hook>>,
    /// The next one of the round.
    next: usize,
}

impl Look {
    /// The job.
    pub fn new(hooks: Vec<Rc<Hook>>) -> Self {
        Self { hooks, next: 0 }
    }
}

impl Job for Look {
    /// A server that left sees its idle connections closed within a second.
    fn period(&self) -> u64 {
        500
    }

    fn begin(&mut self) {
        self.next = 0;
    }

    fn step(&mut self) -> bool {
        let Some(hook) = self.hooks.get(self.next) else { return false };
        hook.look();
        self.next += 1;
        true
    }
}
