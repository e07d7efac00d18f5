//! Leases in the module's zone. Their words are read and written without the lock.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::ops::lease::{Candidate, Decision, Owner, decide, expiry};

/// Room for leases: more than there are jobs, so that a new job does not begin a new zone.
pub const LEASES: usize = 16;

/// A lease, in the zone. All zeroes is one that nobody has.
#[repr(C)]
pub struct Lease {
    /// Who has it: an [`Owner`].
    owner: AtomicU64,
    /// When it runs out, by nginx's clock of milliseconds.
    expires: AtomicU64,
}

impl Lease {
    /// Takes or extends the lease for two times `period` milliseconds. False if another process has it.
    pub fn hold(
        &self,
        candidate: Candidate,
        now: u64,
        period: u64,
        is_alive: impl FnOnce(u32) -> bool,
    ) -> bool {
        let word = self.owner.load(Ordering::Acquire);
        let expires = self.expires.load(Ordering::Relaxed);
        let is_held = match decide(Owner::from_word(word), expires, candidate, now, is_alive) {
            Decision::Leave => false,
            Decision::Keep => true,
            Decision::Take(owner) => {
                self.owner.compare_exchange(word, owner.word(), Ordering::AcqRel, Ordering::Relaxed).is_ok()
            }
        };
        if is_held {
            // An owner that loses the lease right here extends that of its successor, which does no harm.
            self.expires.store(expiry(now, period), Ordering::Relaxed);
        }
        is_held
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_holds_it_and_another_after_its_end() {
        let lease = Lease { owner: AtomicU64::new(0), expires: AtomicU64::new(0) };
        let [one, other] = [1, 2].map(|pid| Candidate { pid, generation: 1 });
        assert!(lease.hold(one, 100, 10, |_| true));
        assert!(!lease.hold(other, 119, 10, |_| true));
        assert!(lease.hold(one, 119, 10, |_| true), "the owner extends it");
        assert!(!lease.hold(other, 138, 10, |_| true));
        assert!(lease.hold(other, 139, 10, |_| true), "it ran out");
        assert!(!lease.hold(one, 140, 10, |_| true));
        assert!(lease.hold(one, 140, 10, |_| false), "its owner died");
    }
}
