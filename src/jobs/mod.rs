//! Work that no request asks for: in workers, in slices between which they serve requests.
//!
//! A job is done by one worker for all, by a lease that the others take over within two periods when its owner dies, is
//! blocked or ends. No job goes on in a worker that takes no new requests, and none is done by the master, by a helper
//! process, or by nginx without a master.

mod reap;

use std::time::{Duration, Instant};

use crate::model::log::Level;
use crate::nginx::log::Log;
use crate::nginx::process;
use crate::nginx::time;
use crate::nginx::timer::{self, Again};
use crate::ops::job::{Job, JobKind, Upkeep};

use reap::Reap;

/// Time between two rounds of a job, in milliseconds.
const PERIOD: u64 = 1_000;

/// How long a slice takes, at most.
const SLICE: Duration = Duration::from_millis(2);

/// A round that begins later than planned by this, in milliseconds, is told to the log: the worker was blocked.
const BLOCKED: u64 = 1_000;

/// A job of this worker, as long as it has the lease.
struct Work {
    /// Its lease.
    kind: JobKind,
    /// What is done.
    job: Box<dyn Job>,
    /// Whether a round is under way.
    is_under_way: bool,
}

/// The jobs of this worker.
struct Jobs {
    /// The upstreams.
    upkeep: &'static dyn Upkeep,
    /// The jobs.
    work: Vec<Work>,
    /// When the next round begins, by nginx's clock of milliseconds.
    planned: u64,
}

/// Starts the jobs of a worker; in any other process it does nothing.
pub fn start(upkeep: &'static dyn Upkeep) {
    if !process::is_worker() {
        return;
    }
    let work = vec![Work { kind: JobKind::Reap, job: Box::new(Reap::new(upkeep)), is_under_way: false }];
    let mut jobs = Jobs { upkeep, work, planned: time::msec().saturating_add(PERIOD) };
    timer::start(PERIOD, move || jobs.slice(time::msec()));
}

impl Jobs {
    /// Does what fits into a slice.
    fn slice(&mut self, now: u64) -> Again {
        if process::is_exiting() {
            return Again::After(PERIOD);
        }
        if now >= self.planned {
            self.begin(now);
        }
        let end = Instant::now() + SLICE;
        for work in self.work.iter_mut().filter(|work| work.is_under_way) {
            while work.job.step() {
                if Instant::now() >= end {
                    return Again::Next;
                }
            }
            work.is_under_way = false;
        }
        Again::After(self.planned.saturating_sub(now))
    }

    /// Begins a round of each job that this worker has the lease of.
    fn begin(&mut self, now: u64) {
        let late = now.saturating_sub(self.planned);
        if late >= BLOCKED
            && let Some(log) = Log::of_process()
        {
            log.write(Level::Info, format_args!("upstream control: this worker was blocked for {late} ms"));
        }
        self.planned = now.saturating_add(PERIOD);
        for work in &mut self.work {
            let is_ours = self.upkeep.may_do(work.kind, now, PERIOD);
            if is_ours && !work.is_under_way {
                work.job.begin();
            }
            work.is_under_way = is_ours;
        }
    }
}
