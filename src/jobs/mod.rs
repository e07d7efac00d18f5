//! Work that no request asks for: in workers, in slices between which they serve requests.
//!
//! A job of the configuration is done by one worker for all, by a lease that the others take over within two periods when
//! its owner dies, is blocked or ends. A job of the worker is done by each for itself. No job goes on in a worker that
//! takes no new requests, and none is done by the master, by a helper process, or by nginx without a master.

mod reap;

use std::rc::Rc;
use std::time::{Duration, Instant};

use crate::model::log::Level;
use crate::nginx::log::Log;
use crate::nginx::process;
use crate::nginx::time;
use crate::nginx::timer::{self, Again};
use crate::ops::job::{Job, JobKind, Upkeep};

use reap::Reap;

/// How long a slice takes, at most.
const SLICE: Duration = Duration::from_millis(2);

/// A round that begins later than planned by this, in milliseconds, is told to the log: the worker was blocked.
const BLOCKED: u64 = 1_000;

/// A job that this worker may have to do.
struct Work {
    /// The lease that it takes; none for a job of the worker.
    lease: Option<JobKind>,
    /// What is done.
    job: Box<dyn Job>,
    /// When the next round begins, by nginx's clock of milliseconds.
    planned: u64,
    /// Whether a round is under way.
    is_under_way: bool,
}

/// The jobs that this worker may have to do.
struct Jobs {
    /// The upstreams.
    upkeep: Rc<dyn Upkeep>,
    /// The jobs; at least one.
    work: Vec<Work>,
}

/// Starts the jobs: those of the configuration, and `own` ones of each worker. In a process that is no worker it does
/// nothing.
pub fn start(upkeep: Rc<dyn Upkeep>, own: Vec<Box<dyn Job>>) {
    if !process::is_worker() {
        return;
    }
    let reap: Box<dyn Job> = Box::new(Reap::new(Rc::clone(&upkeep)));
    let now = time::msec();
    let mut jobs = Jobs::new(upkeep, vec![(JobKind::Reap, reap)], own, now);
    timer::start(jobs.left(now), move || jobs.slice(time::msec()));
}

impl Jobs {
    /// Jobs of the configuration, each with its lease, and of this worker. The first round of each begins in a period.
    fn new(
        upkeep: Rc<dyn Upkeep>,
        shared: Vec<(JobKind, Box<dyn Job>)>,
        own: Vec<Box<dyn Job>>,
        now: u64,
    ) -> Self {
        let shared = shared.into_iter().map(|(kind, job)| (Some(kind), job));
        let all = shared.chain(own.into_iter().map(|job| (None, job)));
        let work = all.map(|(lease, job)| Work {
            lease,
            planned: now.saturating_add(job.period()),
            job,
            is_under_way: false,
        });
        Self { upkeep, work: work.collect() }
    }

    /// When the next round of any job begins.
    fn planned(&self) -> u64 {
        self.work.iter().map(|work| work.planned).min().unwrap_or(u64::MAX)
    }

    /// How long that is from now, in milliseconds.
    fn left(&self, now: u64) -> u64 {
        self.planned().saturating_sub(now)
    }

    /// Does what fits into a slice.
    fn slice(&mut self, now: u64) -> Again {
        if process::is_exiting() {
            // It never takes new requests again.
            return Again::OnDemand;
        }
        self.begin(now);
        let end = Instant::now() + SLICE;
        for work in self.work.iter_mut().filter(|work| work.is_under_way) {
            while work.job.step() {
                if Instant::now() >= end {
                    return Again::Next;
                }
            }
            work.is_under_way = false;
        }
        Again::After(self.left(now))
    }

    /// Begins the rounds that are due: of the jobs of this worker, and of those that it has the lease of.
    fn begin(&mut self, now: u64) {
        let late = now.saturating_sub(self.planned());
        if late >= BLOCKED
            && let Some(log) = Log::of_process()
        {
            log.write(Level::Info, format_args!("upstream control: this worker was blocked for {late} ms"));
        }
        for work in self.work.iter_mut().filter(|work| work.planned <= now) {
            let period = work.job.period();
            work.planned = now.saturating_add(period);
            let is_ours = work.lease.is_none_or(|kind| self.upkeep.may_do(kind, now, period));
            if is_ours && !work.is_under_way {
                work.job.begin();
            }
            work.is_under_way = is_ours;
        }
    }
}

#[cfg(all(test, feature = "nginx-objs"))]
mod tests {
    use std::cell::{Cell, RefCell};

    use super::*;
    use crate::model::id::UpstreamIndex;

    /// No upstreams, and a lease that is this worker's or not.
    #[derive(Default)]
    struct Fake {
        /// Whether it is.
        is_ours: Cell<bool>,
        /// When it was asked for.
        asked: RefCell<Vec<u64>>,
    }

    impl Upkeep for Fake {
        fn count(&self) -> usize {
            0
        }

        fn reap(&self, _upstream: UpstreamIndex) {}

        fn may_do(&self, _kind: JobKind, now: u64, _period: u64) -> bool {
            self.asked.borrow_mut().push(now);
            self.is_ours.get()
        }
    }

    /// A job of so many steps, of which each is counted.
    struct Steps {
        /// Its period.
        period: u64,
        /// Steps that are left.
        left: usize,
        /// Steps that were done.
        done: Rc<Cell<usize>>,
        /// How long each takes.
        lasting: Duration,
    }

    impl Job for Steps {
        fn period(&self) -> u64 {
            self.period
        }

        fn begin(&mut self) {
            self.left = 3;
        }

        fn step(&mut self) -> bool {
            std::thread::sleep(self.lasting);
            self.done.set(self.done.get() + 1);
            self.left -= 1;
            self.left > 0
        }
    }

    /// A job, and the number of its steps that were done.
    fn job(period: u64, lasting: Duration) -> (Box<dyn Job>, Rc<Cell<usize>>) {
        let done = Rc::<Cell<usize>>::default();
        (Box::new(Steps { period, left: 0, done: Rc::clone(&done), lasting }), done)
    }

    #[test]
    fn a_job_of_the_worker_needs_no_lease() {
        let upkeep = Rc::<Fake>::default();
        let ((shared, of_all), (own, of_one)) = (job(1_000, Duration::ZERO), job(500, Duration::ZERO));
        let mut jobs = Jobs::new(upkeep.clone(), vec![(JobKind::Reap, shared)], vec![own], 10);
        assert_eq!(jobs.left(10), 500);
        assert_eq!(jobs.slice(400), Again::After(110));
        assert_eq!((of_all.get(), of_one.get()), (0, 0), "nothing is due");
        assert_eq!(jobs.slice(510), Again::After(500));
        assert_eq!((of_all.get(), of_one.get()), (0, 3));
        assert_eq!(jobs.slice(1_010), Again::After(500));
        assert_eq!((of_all.get(), of_one.get()), (0, 6), "another worker has the lease");
        upkeep.is_ours.set(true);
        assert_eq!(jobs.slice(2_015), Again::After(500));
        assert_eq!((of_all.get(), of_one.get()), (3, 9));
        assert_eq!(*upkeep.asked.borrow(), [1_010, 2_015], "once in its period");
    }

    #[test]
    fn a_round_is_cut_into_slices() {
        let (own, done) = job(500, SLICE);
        let mut jobs = Jobs::new(Rc::<Fake>::default(), Vec::new(), vec![own], 0);
        assert_eq!(jobs.slice(500), Again::Next);
        assert_eq!(jobs.slice(502), Again::Next);
        assert_eq!(jobs.slice(504), Again::After(496));
        assert_eq!(done.get(), 3);
    }
}
