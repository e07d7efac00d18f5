//! What a zone of another size takes over from the one before, so that ids and revisions go on.

use std::ptr::NonNull;
use std::sync::atomic::Ordering;

use super::adopt::Claim;
use super::lock::Locked;
use super::memory::Full;
use super::records::{Reason, Server};

impl Locked {
    /// Copies upstreams and servers from another store, of which nobody makes use yet. Reasons stay behind: a
    /// configuration that starts drops them.
    ///
    /// # Errors
    ///
    /// The zone is full; what was copied is whole.
    pub fn inherit(&mut self, old: &mut Self) -> Result<(), Full> {
        self.header().generation = old.header().generation;
        let mut next = old.header().upstreams;
        while let Some(from) = NonNull::new(next) {
            // SAFETY: both locks are held. Records of upstreams are never freed, and the servers of one are linked; the
            // new records are reached by nobody else.
            unsafe {
                let to = self.upstream(old.text(&(*from.as_ptr()).name))?.as_ptr();
                let revision = old.revision(from);
                (*to).revision.store(revision, Ordering::Relaxed);
                (*to).next_id = (*from.as_ptr()).next_id;
                (*to).moves = (*from.as_ptr()).moves;
                let mut link = &raw mut (*to).servers;
                for server in old.servers(from) {
                    let server = server.as_ref();
                    let copy = self.new_server(&Claim {
                        group: server.group(),
                        server: server.server(),
                        name: server.name(),
                        terms: server.base.into(),
                        managed: server.managed != 0,
                    })?;
                    (*copy).id = server.id;
                    (*copy).born = server.born;
                    (*copy).base = server.base;
                    (*copy).wishes = [server.wish(revision).without_reason(); 2];
                    *link = copy;
                    link = &raw mut (*copy).next;
                }
                self.rebuild(to);
                next = (*from.as_ptr()).next;
            }
        }
        Ok(())
    }

    /// Counts the servers of all upstreams, and those for whose reasons there is room besides those that have one.
    pub fn room_for_reasons(&mut self) -> (usize, usize) {
        let mut servers = 0;
        let mut next = self.header().upstreams;
        while let Some(upstream) = NonNull::new(next) {
            // SAFETY: the lock is held, and records of upstreams are never freed.
            unsafe {
                let without = |server: &NonNull<Server>| server.as_ref().reasons.is_null();
                servers += self.servers(upstream).filter(without).count();
                next = (*upstream.as_ptr()).next;
            }
        }
        (servers, self.chunks_left(size_of::<[Reason; 2]>()))
    }
}
