//! Who does a job that only one of all workers may do.
//!
//! A lease is two words in shared memory: who has it, and until when. The owner extends it in each period. Others take it
//! when it has run out, when its owner is dead, or when its owner runs an older configuration. Whoever takes it changes the
//! first word, so that an owner who was blocked for a while sees that it lost the lease before it commits anything.

/// Bits of a process id. Linux allows no more than 2^22 processes.
const PID_BITS: u32 = 22;

/// Bits of the configuration's number.
const GENERATION_BITS: u32 = 16;

/// The owner of a lease as one word, so that it changes at once: process, configuration, and a count that moves with
/// each new owner. 0 is nobody.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Owner(u64);

/// A process that may take a lease.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Candidate {
    /// Its id.
    pub pid: u32,
    /// The number of the configuration that it runs.
    pub generation: u64,
}

/// What a process does about a lease.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Decision {
    /// It has the lease, and extends it.
    Keep,
    /// It takes the lease: this is to become the first word, if that is still what was looked at.
    Take(Owner),
    /// Another process has it.
    Leave,
}

impl Owner {
    /// The word as it lies in memory.
    pub fn from_word(word: u64) -> Self {
        Self(word)
    }

    /// The word for shared memory.
    pub fn word(self) -> u64 {
        self.0
    }

    /// The process; 0 for nobody.
    pub fn pid(self) -> u32 {
        (self.0 & mask(PID_BITS)) as u32
    }

    /// The lowest bits of the configuration's number.
    fn generation(self) -> u64 {
        (self.0 >> PID_BITS) & mask(GENERATION_BITS)
    }

    /// The owner after this one.
    fn next(self, candidate: Candidate) -> Self {
        let count = (self.0 >> (PID_BITS + GENERATION_BITS)).wrapping_add(1);
        let generation = candidate.generation & mask(GENERATION_BITS);
        let pid = u64::from(candidate.pid) & mask(PID_BITS);
        Self(count << (PID_BITS + GENERATION_BITS) | generation << PID_BITS | pid)
    }

    /// Whether this is the candidate's.
    fn is(self, candidate: Candidate) -> bool {
        self.0 != 0
            && u64::from(self.pid()) == u64::from(candidate.pid) & mask(PID_BITS)
            && self.generation() == candidate.generation & mask(GENERATION_BITS)
    }

    /// Whether a candidate's configuration is newer. The numbers wrap around, so that the nearer way decides.
    fn is_older_than(self, candidate: Candidate) -> bool {
        let ahead = candidate.generation.wrapping_sub(self.generation()) & mask(GENERATION_BITS);
        ahead != 0 && ahead < mask(GENERATION_BITS) / 2
    }
}

/// So many ones.
fn mask(bits: u32) -> u64 {
    (1 << bits) - 1
}

/// What `candidate` does about a lease of `owner` that runs out at `expires`. `now` is in the same milliseconds. `is_alive`
/// is asked about the owner's process, and only if that decides.
pub fn decide(
    owner: Owner,
    expires: u64,
    candidate: Candidate,
    now: u64,
    is_alive: impl FnOnce(u32) -> bool,
) -> Decision {
    if owner.is(candidate) {
        return Decision::Keep;
    }
    let is_free = owner.pid() == 0
        || owner.is_older_than(candidate)
        || (owner.generation() == candidate.generation & mask(GENERATION_BITS)
            && (now >= expires || !is_alive(owner.pid())));
    if is_free { Decision::Take(owner.next(candidate)) } else { Decision::Leave }
}

/// When a lease runs out that is extended now: after two periods.
pub fn expiry(now: u64, period: u64) -> u64 {
    now.saturating_add(period.saturating_mul(2))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Nobody.
    const NOBODY: Owner = Owner(0);

    /// A worker.
    fn worker(pid: u32, generation: u64) -> Candidate {
        Candidate { pid, generation }
    }

    /// The owner after a candidate took the lease.
    fn taken(owner: Owner, candidate: Candidate) -> Owner {
        match decide(owner, 0, candidate, 0, |_| false) {
            Decision::Take(owner) => owner,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn what_is_free_is_taken_and_then_kept() {
        let first = taken(NOBODY, worker(7, 1));
        assert_eq!(first.pid(), 7);
        assert_eq!(decide(first, 0, worker(7, 1), 99, |_| false), Decision::Keep);
        assert_eq!(decide(first, 100, worker(8, 1), 99, |_| true), Decision::Leave);
    }

    #[test]
    fn the_lease_of_the_late_and_of_the_dead_is_taken() {
        let first = taken(NOBODY, worker(7, 1));
        assert!(matches!(decide(first, 100, worker(8, 1), 100, |_| true), Decision::Take(_)));
        assert!(matches!(decide(first, 100, worker(8, 1), 0, |pid| pid != 7), Decision::Take(_)));
    }

    #[test]
    fn who_lost_it_sees_that_also_if_it_comes_back() {
        let first = taken(NOBODY, worker(7, 1));
        let second = taken(first, worker(8, 1));
        assert_eq!(decide(second, 100, worker(7, 1), 50, |_| true), Decision::Leave);
        let third = taken(second, worker(7, 1));
        assert_ne!(first, third);
    }

    #[test]
    fn a_newer_configuration_wins_and_an_older_one_never() {
        let old = taken(NOBODY, worker(7, 1));
        assert!(matches!(decide(old, u64::MAX, worker(8, 2), 0, |_| true), Decision::Take(_)));
        let new = taken(old, worker(8, 2));
        assert_eq!(decide(new, 0, worker(7, 1), 100, |_| false), Decision::Leave);
        // around the end of the bits
        let last = taken(NOBODY, worker(7, mask(GENERATION_BITS)));
        assert!(matches!(
            decide(last, u64::MAX, worker(8, mask(GENERATION_BITS) + 1), 0, |_| true),
            Decision::Take(_)
        ));
    }

    #[test]
    fn one_owner_at_a_time_whatever_happens() {
        // Three workers look at the word at any time; a write counts only if the word is what was looked at.
        let mut random = crate::model::query::random::Random::new(11);
        for _ in 0..2_000 {
            let (mut word, mut expires, mut now) = (NOBODY, 0_u64, 0_u64);
            let mut believes = [None; 3];
            for _ in 0..60 {
                now += random.below(3) as u64;
                let who = random.below(3);
                let candidate = worker(who as u32 + 1, 1);
                let looked = word;
                match decide(looked, expires, candidate, now, |_| true) {
                    Decision::Keep => expires = expiry(now, 1),
                    Decision::Take(owner) => {
                        word = owner;
                        expires = expiry(now, 1);
                        believes[who] = Some(owner);
                    }
                    Decision::Leave => {}
                }
                // Whoever commits compares the word with the one it took.
                let owners = believes.iter().filter(|owner| **owner == Some(word)).count();
                assert!(owners <= 1);
            }
        }
    }
}
