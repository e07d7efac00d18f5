//! The hook of an upstream of pools.

use std::cell::Cell;
use std::rc::Rc;

use crate::live::Pools;
use crate::nginx::event::{Again, Event};
use crate::nginx::time;

/// Time between two looks at the pools by one worker, in milliseconds, while requests find them other than they were.
const LOOK: u64 = 100;

/// What the hook of one upstream of pools knows.
pub struct Composed {
    /// The pools.
    pools: Rc<Pools>,
    /// Finds out which pool is active.
    looking: Event,
    /// When this worker last looked.
    looked: Cell<u64>,
}

impl Composed {
    /// For these pools.
    pub(super) fn new(pools: Rc<Pools>) -> Self {
        let looked_at = Rc::clone(&pools);
        let looking = Event::new(move || {
            looked_at.observe();
            Again::OnDemand
        });
        Self { pools, looking, looked: Cell::new(0) }
    }

    /// The pools.
    pub(super) fn pools(&self) -> &Pools {
        &self.pools
    }

    /// Sees to it that somebody looks at the pools: after the present event, or some time after the last look.
    #[cold]
    pub(super) fn look_soon(&self) {
        let now = time::msec();
        let wait = self.looked.get().saturating_add(LOOK).saturating_sub(now);
        if wait == 0 {
            self.looked.set(now);
            self.looking.post();
        } else {
            self.looking.set_timer(wait);
        }
    }
}
