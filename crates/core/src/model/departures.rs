//! Who left last, remembered by hashes: whoever looks from time to time learns whether somebody left meanwhile.

use std::sync::atomic::{AtomicU64, Ordering, fence};

/// How many had left at some moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Departures(u64);

/// A count of departures with the last `N` of them, in shared memory: one process writes at a time, others may look
/// meanwhile. All zeroes is the start.
#[repr(C)]
pub struct Departed<const N: usize> {
    /// How many left.
    count: AtomicU64,
    /// Hashes of those that left last.
    hashes: [AtomicU64; N],
}

/// Who left between two moments.
pub struct Left<const N: usize> {
    /// Hashes; none if they were too many to remember.
    hashes: Option<([u64; N], usize)>,
}

impl<const N: usize> Left<N> {
    /// Whether one with this hash left. If too many did, all are taken for such.
    pub fn has(&self, hash: u64) -> bool {
        self.hashes
            .as_ref()
            .is_none_or(|(hashes, count)| hashes.iter().take(*count).any(|left| *left == hash))
    }
}

impl<const N: usize> Departed<N> {
    /// How many left so far.
    #[inline]
    pub fn count(&self) -> Departures {
        Departures(self.count.load(Ordering::Acquire))
    }

    /// Who left since a moment, and how many had by now.
    pub fn since(&self, then: Departures) -> (Left<N>, Departures) {
        let now = self.count();
        let mut hashes = [0; N];
        let mut count = 0;
        for at in then.0..now.0 {
            if count == N {
                return (Left { hashes: None }, now);
            }
            if let (Some(to), Some(from)) = (hashes.get_mut(count), self.place(at)) {
                *to = from.load(Ordering::Relaxed);
            }
            count += 1;
        }
        // Places that were written again meanwhile hold later departures.
        fence(Ordering::Acquire);
        let overwritten = self.count().0.saturating_sub(then.0) >= N as u64;
        (Left { hashes: (!overwritten).then_some((hashes, count)) }, now)
    }

    /// Notes that one leaves.
    pub fn note(&self, hash: u64) {
        let at = self.count.load(Ordering::Relaxed);
        if let Some(place) = self.place(at) {
            place.store(hash, Ordering::Relaxed);
        }
        self.count.store(at.wrapping_add(1), Ordering::Release);
    }

    /// Whether one with this hash is among the last `last` that left, as far as they are remembered.
    pub fn recalls(&self, hash: u64, last: u64) -> bool {
        let now = self.count().0;
        let from = now.saturating_sub(last.min(N as u64));
        (from..now).filter_map(|at| self.place(at)).any(|place| place.load(Ordering::Relaxed) == hash)
    }

    /// Where a departure is remembered.
    fn place(&self, at: u64) -> Option<&AtomicU64> {
        self.hashes.get((at % N as u64) as usize)
    }
}

/// The moment of one that looks, in shared memory, too: see [`Departures`].
#[repr(C)]
pub struct Seen(AtomicU64);

impl Seen {
    /// The moment.
    pub fn get(&self) -> Departures {
        Departures(self.0.load(Ordering::Relaxed))
    }

    /// Another moment.
    pub fn set(&self, now: Departures) {
        self.0.store(now.0, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Nobody left.
    fn none<const N: usize>() -> Departed<N> {
        Departed { count: AtomicU64::new(0), hashes: [const { AtomicU64::new(0) }; N] }
    }

    #[test]
    fn one_learns_who_left_since_one_looked() {
        let departed = none::<4>();
        departed.note(7);
        let (left, then) = departed.since(Departures::default());
        assert!(left.has(7) && !left.has(8));
        departed.note(8);
        let (left, now) = departed.since(then);
        assert!(left.has(8) && !left.has(7));
        assert!(!departed.since(now).0.has(8));
    }

    #[test]
    fn when_too_many_left_everybody_may_have() {
        let departed = none::<4>();
        for hash in 1..=3 {
            departed.note(hash);
        }
        assert!(!departed.since(Departures::default()).0.has(9));
        departed.note(4);
        departed.note(5);
        assert!(departed.since(Departures::default()).0.has(9));
        assert!(!departed.since(departed.count()).0.has(9));
    }

    #[test]
    fn the_last_ones_are_recalled() {
        let departed = none::<4>();
        for hash in 1..=6 {
            departed.note(hash);
        }
        let recalled = |last| (0..8).filter(|hash| departed.recalls(*hash, last)).collect::<Vec<_>>();
        assert!(recalled(0).is_empty());
        assert_eq!(recalled(2), [5, 6]);
        assert_eq!(recalled(9), [3, 4, 5, 6]);
    }
}
