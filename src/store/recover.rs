//! Taking the lock, with what a worker that died with it left behind.

use std::ptr::{self, NonNull};
use std::sync::atomic::{Ordering, fence};
use std::time::Duration;

use super::death;
use super::lock::{Holder, Locked, Store};
use super::records::{UNKNOWN, Wish};

impl Store {
    /// Takes the lock, and puts right what a worker that died with it left behind.
    ///
    /// # Errors
    ///
    /// The lock is held for longer than `limit`, or was when it was last waited for.
    pub fn lock_within(&self, limit: Duration) -> Result<Locked, Holder> {
        let mut locked = self.take(limit)?;
        locked.recover();
        Ok(locked)
    }
}

impl Locked {
    /// Forgets what a writer that died did not publish, wishes and servers beyond the revision of their upstream, and
    /// makes anew all that leads to servers.
    fn recover(&mut self) {
        let upstream = self.header().writing;
        if upstream.is_null() {
            return;
        }
        // SAFETY: the pointer was written by a process of ours to a record in the zone, records of upstreams are never
        // freed, and the lock is held. The list of servers is whole at every moment. What the dead writer
        // reserved and had given to no server stays allocated.
        unsafe {
            let revision = *(*upstream).revision.get_mut();
            (*upstream).indexed = UNKNOWN;
            let mut link = &raw mut (*upstream).servers;
            while let Some(server) = NonNull::new(*link) {
                let record = server.as_ptr();
                for wish in &mut (*record).wishes {
                    if wish.revision > revision {
                        *wish = Wish::of_configuration((*record).base);
                    }
                }
                if (*record).exists(revision) {
                    (*record).gone = 0;
                    link = &raw mut (*record).next;
                } else {
                    *link = (*record).next;
                    fence(Ordering::SeqCst);
                    death::may_come();
                    self.free_server(record);
                }
            }
            self.rebuild(upstream);
        }
        self.end_writing(ptr::null_mut());
    }
}
