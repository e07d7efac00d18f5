//! A change: reserved first, written into the places that do not count, and published by one word.

use std::ptr::{self, NonNull};
use std::sync::atomic::{Ordering, fence};

use crate::model::params::Params;
use crate::model::state::Admin;

use super::lock::{Full, Locked};
use super::records::{Reason, Server, Upstream, Wish};

/// What one server is to be.
pub struct Change {
    /// Its record, found under the same lock.
    pub server: NonNull<Server>,
    /// Up, down or draining.
    pub admin: Admin,
    /// weight, max_conns, max_fails, fail_timeout.
    pub params: Params,
    /// Who asks, if the state was asked for; else the reason stays.
    pub reason: Option<Reason>,
    /// The reason in the zone, while the change is made.
    reserved: *mut Reason,
    /// A reason that nothing refers to when the change is published.
    obsolete: *mut Reason,
}

impl Change {
    /// A change of one server.
    pub fn new(server: NonNull<Server>, admin: Admin, params: Params, reason: Option<Reason>) -> Self {
        Self { server, admin, params, reason, reserved: ptr::null_mut(), obsolete: ptr::null_mut() }
    }
}

impl Locked {
    /// Number of changes of an upstream.
    pub fn revision(&self, upstream: NonNull<Upstream>) -> u64 {
        // SAFETY: records of upstreams are never freed; the lock is held.
        unsafe { (*upstream.as_ptr()).revision.load(Ordering::Relaxed) }
    }

    /// The servers of an upstream, in their order.
    pub fn servers(&self, upstream: NonNull<Upstream>) -> impl Iterator<Item = NonNull<Server>> + '_ {
        // SAFETY: the lock is held for as long as the iterator lives, so that linked records stay.
        let first = unsafe { NonNull::new((*upstream.as_ptr()).servers) };
        // SAFETY: likewise.
        std::iter::successors(first, |server| unsafe { NonNull::new((*server.as_ptr()).next) })
    }

    /// The record of the server with this id.
    pub fn server(&self, upstream: NonNull<Upstream>, id: u64) -> Option<NonNull<Server>> {
        // SAFETY: the lock is held, and the record is linked.
        self.servers(upstream).find(|server| unsafe { (*server.as_ptr()).id == id })
    }

    /// Makes all changes, or none. Returns the new revision.
    ///
    /// # Errors
    ///
    /// The zone has no room for the reasons.
    pub fn commit(&mut self, upstream: NonNull<Upstream>, changes: &mut [Change]) -> Result<u64, Full> {
        self.reserve(changes)?;
        self.header().writing = upstream.as_ptr();
        fence(Ordering::SeqCst);

        let revision = self.revision(upstream);
        let next = revision + 1;
        for change in changes.iter_mut() {
            // SAFETY: the lock is held, and the caller found the record under it.
            let server = unsafe { change.server.as_mut() };
            let current = server.wish(revision);
            let spare = server.spare(revision);
            if spare.reason != current.reason {
                change.obsolete = spare.reason;
            }
            let reason = if change.reason.is_some() { change.reserved } else { current.reason };
            *spare = Wish::new(next, change.admin, change.params, reason);
        }

        // SAFETY: records of upstreams are never freed. Until this store the changes do not count, after it they do.
        unsafe { (*upstream.as_ptr()).revision.store(next, Ordering::SeqCst) };
        self.header().writing = ptr::null_mut();
        for change in changes {
            // SAFETY: the last wish that referred to it was overwritten above.
            unsafe { self.free(change.obsolete) };
        }
        Ok(next)
    }

    /// Takes the memory that the changes need, so that nothing can fail after it.
    fn reserve(&mut self, changes: &mut [Change]) -> Result<(), Full> {
        for at in 0..changes.len() {
            let Some(change) = changes.get_mut(at) else {
                continue;
            };
            let Some(reason) = change.reason else { continue };
            match self.alloc::<Reason>() {
                // SAFETY: the chunk was made here, and nobody else knows it.
                Ok(chunk) => unsafe {
                    chunk.write(reason);
                    change.reserved = chunk;
                },
                Err(full) => {
                    for change in changes {
                        // SAFETY: reserved above, and no wish refers to it yet.
                        unsafe { self.free(change.reserved) };
                        change.reserved = ptr::null_mut();
                    }
                    return Err(full);
                }
            }
        }
        Ok(())
    }
}
