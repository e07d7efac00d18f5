//! What an upstream that is a pool of another one is worth: how many of its peers a request could be handed to.

use std::sync::atomic::Ordering;

use crate::model::state::Failures;
use crate::model::time::UnixTime;

use super::backend::Backend;
use super::current::Current;
use super::handle::Zone;
use super::peers::{List, Peer};

/// The peers of both lists, counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Census {
    /// Balancers choose these, if they have a connection left.
    pub usable: u64,
    /// Down or draining.
    pub down: u64,
    /// Left alone for their failures.
    pub unavail: u64,
    /// Left alone for long enough: the next request that comes to one is a trial.
    pub untried: u64,
}

impl Zone {
    /// Counts the peers as the balancers see them at `now`. None if their locks are stuck.
    pub fn census(&self, now: UnixTime) -> Option<Census> {
        let lists = self.read()?;
        let mut census = Census::default();
        let single = lists.primary().is_single();
        for (_, list) in lists.iter() {
            for peer in lists.servers(list) {
                let count = match standing(peer, single, now) {
                    Standing::Usable => &mut census.usable,
                    Standing::Down => &mut census.down,
                    Standing::Unavail => &mut census.unavail,
                    Standing::Untried => &mut census.untried,
                };
                *count += 1;
            }
        }
        Some(census)
    }

    /// How many peers are not down, which is how often a request may be handed to this upstream: as nginx does when a
    /// request begins, without the locks. A number that is just being changed is a try too many or too few.
    pub fn tries(&self) -> usize {
        let backups = self.primary().backups().map_or(0, List::tries);
        self.primary().tries().saturating_add(backups)
    }

    /// Notes that requests which find no peer here are handed to another pool, so that a lone server is not alone: nginx
    /// is to leave it alone after failures, as it does beside a backup.
    ///
    /// # Safety
    ///
    /// Called by the master, in `init_module`, after [`Backend::begin`].
    pub unsafe fn begin_as_pool(&self) {
        let Some(extra) = self.extra() else { return };
        // SAFETY: the words lie in the zone.
        unsafe { extra.as_ref() }.has_fallback.store(true, Ordering::Relaxed);
        self.settle_locked();
    }

    /// The same once more for such a pool, if it is no longer so: nginx itself decides who is alone whenever a name
    /// resolves to other addresses, and knows nothing of pools.
    #[inline]
    pub fn settle_pool(&self) {
        // Read without the lock: the next request sees what this one does not.
        if self.primary().is_single() {
            self.settle_locked();
        }
    }

    /// What depends on the whole of the lists.
    #[cold]
    fn settle_locked(&self) {
        if let Some(lists) = self.write() {
            Current::settle(&lists);
        }
    }
}

/// What the balancers make of a peer.
enum Standing {
    /// They may choose it.
    Usable,
    /// It is down or draining.
    Down,
    /// It failed too often.
    Unavail,
    /// It did, and may be chosen again to see whether it is well.
    Untried,
}

/// What the balancers make of one peer.
fn standing(peer: Peer<'_>, single: bool, now: UnixTime) -> Standing {
    let failures = Failures {
        fails: peer.fails() as u64,
        max_fails: peer.max_fails() as u64,
        fail_timeout: u64::try_from(peer.fail_timeout()).unwrap_or(0),
        checked: peer.checked(),
        single,
    };
    if !peer.is_up() {
        Standing::Down
    } else if failures.exhausted(now) {
        Standing::Unavail
    } else if failures.is_full() {
        Standing::Untried
    } else {
        Standing::Usable
    }
}

#[cfg(test)]
#[cfg(feature = "nginx-objs")]
mod tests {
    use std::ptr::NonNull;

    use super::*;
    use crate::nginx::fixture;
    use crate::nginx::shm::Word;
    use crate::zone::Extra;
    use crate::zone::nginx_peers::RawPeer;
    use crate::zone::tests::upstream;

    /// A moment.
    const NOW: UnixTime = UnixTime(1_000);

    /// An upstream of so many servers, and their lists.
    fn zone(servers: &[(&str, u16, isize)]) -> Zone {
        let (us, shm) = upstream(servers, &[]);
        // SAFETY: the fixture made lists of peers, and a zone for them; nobody else knows either.
        unsafe {
            let extra = Word::<Extra>::alloc(NonNull::new(fixture::pool(shm)).unwrap()).unwrap();
            Zone::of(us).unwrap().with_extra(extra)
        }
    }

    /// Writes to a peer.
    fn set(zone: &Zone, at: usize, write: impl FnOnce(&mut RawPeer)) {
        let lists = zone.read().unwrap();
        // SAFETY: the fixture linked it, and the test has it alone.
        write(unsafe { &mut *lists.servers(lists.primary()).nth(at).unwrap().raw().as_ptr() });
    }

    /// Makes a peer one that failed.
    fn fail(zone: &Zone, at: usize, checked: i64) {
        set(zone, at, |peer| (peer.fails, peer.checked) = (1, checked));
    }

    #[test]
    fn peers_are_counted_as_balancers_see_them() {
        let zone = zone(&[("a", 1, 1), ("b", 2, 1), ("c", 3, 1), ("d", 4, 1), ("e", 5, 1)]);
        set(&zone, 0, |peer| peer.down = 1);
        set(&zone, 1, |peer| peer.down = 8);
        fail(&zone, 2, NOW.0 - 10);
        fail(&zone, 3, NOW.0 - 11);
        let census = Census { usable: 1, down: 2, unavail: 1, untried: 1 };
        assert_eq!(zone.census(NOW), Some(census));
        set(&zone, 2, |peer| peer.max_fails = 0);
        assert_eq!(zone.census(NOW), Some(Census { usable: 2, unavail: 0, ..census }));
    }

    #[test]
    fn a_lone_server_is_alone_unless_there_is_another_pool() {
        let single = |zone: &Zone| zone.primary().is_single();
        let zone = zone(&[("a", 1, 1)]);
        fail(&zone, 0, NOW.0);
        assert!(single(&zone));
        assert_eq!(zone.census(NOW).unwrap().usable, 1, "nginx has no choice");
        // SAFETY: nobody else has the zone.
        unsafe { zone.begin_as_pool() };
        assert!(!single(&zone));
        assert_eq!(zone.census(NOW).unwrap(), Census { unavail: 1, ..Census::default() });
    }
}
