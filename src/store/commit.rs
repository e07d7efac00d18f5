//! A change: reserved first, written into the places that do not count, and published by one word.

use std::ffi::c_void;
use std::ptr::{self, NonNull};
use std::sync::atomic::Ordering;

use crate::model::server::Terms;
use crate::nginx;

use super::adopt::Claim;
use super::death;
use super::index::Key;
use super::lock::Locked;
use super::memory::Full;
use super::records::{Reason, Server, UNKNOWN, Upstream, Wish};

/// What one server is to be.
pub struct Change {
    /// Its record, found under the same lock.
    pub server: NonNull<Server>,
    /// What it is to be.
    pub terms: Terms,
    /// Who asks, if the state was asked for; else the reason stays.
    pub reason: Option<Reason>,
    /// Room for the reasons of a server that has none, while the change is made.
    reserved: *mut [Reason; 2],
}

impl Change {
    /// A change of one server.
    pub fn new(server: NonNull<Server>, terms: Terms, reason: Option<Reason>) -> Self {
        Self { server, terms, reason, reserved: ptr::null_mut() }
    }
}

/// A new server, or one that has another address.
pub struct Arrival<'a> {
    /// What it is.
    pub claim: Claim<'a>,
    /// The record whose id and place it takes, and which leaves.
    pub heir_of: Option<NonNull<Server>>,
    /// Who asks for it.
    pub reason: Option<Reason>,
    /// The peer that is about to be linked for it; null if that is not known.
    pub peer: *mut c_void,
    /// Its id, once the change is made.
    pub id: u64,
    /// The record in the zone, while the change is made.
    record: *mut Server,
}

impl<'a> Arrival<'a> {
    /// An arrival.
    pub fn new(claim: Claim<'a>, heir_of: Option<NonNull<Server>>, reason: Option<Reason>) -> Self {
        Self { claim, heir_of, reason, peer: ptr::null_mut(), id: 0, record: ptr::null_mut() }
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
        self.candidates(upstream, Key::Id(id)).find(|server| server.id == id).map(NonNull::from)
    }

    /// Makes all changes, for which memory was reserved. Returns the new revision.
    pub fn publish(
        &mut self,
        upstream: NonNull<Upstream>,
        changes: &mut [Change],
        leaving: &[NonNull<Server>],
        arriving: &mut [Arrival<'_>],
    ) -> u64 {
        let written = self.begin_writing(upstream.as_ptr());
        death::may_come();
        let revision = self.revision(upstream);
        let next = revision + 1;
        for change in changes.iter_mut() {
            // SAFETY: the lock is held, and the caller found the record under it.
            let server = unsafe { change.server.as_mut() };
            let current = server.wish(revision);
            if server.reasons.is_null() {
                server.reasons = std::mem::replace(&mut change.reserved, ptr::null_mut());
            }
            let reason = match change.reason {
                Some(reason) => server.keep(reason, &current),
                None => current.reason,
            };
            *server.spare(revision) = Wish::new(next, change.terms.into(), reason);
            death::may_come();
        }
        for server in leaving {
            // SAFETY: likewise.
            unsafe {
                (*server.as_ptr()).gone = next;
                (*upstream.as_ptr()).departed.note(Key::Name((*server.as_ptr()).name()).hash());
            }
            death::may_come();
        }
        for arrival in arriving.iter_mut() {
            // SAFETY: likewise; the record was reserved above, and nobody else knows it.
            unsafe { self.link(upstream, arrival, next) };
        }

        if !leaving.is_empty() || !arriving.is_empty() {
            // SAFETY: records of upstreams are never freed; the lock is held. The peers are about to change.
            unsafe { (*upstream.as_ptr()).indexed = UNKNOWN };
        }
        nginx::death::may_come("written");
        // SAFETY: records of upstreams are never freed. Until this store the changes do not count, after it they do.
        unsafe { (*upstream.as_ptr()).revision.store(next, Ordering::SeqCst) };
        death::may_come();
        nginx::death::may_come("counted");
        if !leaving.is_empty() || !arriving.is_empty() {
            // SAFETY: the lock is held; the records that leave are linked, and count no more.
            unsafe {
                (*upstream.as_ptr()).moves += leaving.len().max(arriving.len()) as u64;
                for server in leaving {
                    self.remove(upstream.as_ptr(), server.as_ptr());
                }
            }
        }
        self.end_writing(written);
        next
    }

    /// Takes the memory that the changes need, so that nothing can fail after it.
    ///
    /// # Errors
    ///
    /// The zone has no room for the reasons and the new records; nothing stays taken.
    pub fn reserve(
        &mut self,
        upstream: NonNull<Upstream>,
        changes: &mut [Change],
        arriving: &mut [Arrival<'_>],
    ) -> Result<(), Full> {
        let reserved = self.try_reserve(changes, arriving);
        if reserved.is_err() {
            self.give_back(changes, arriving);
        } else if !arriving.is_empty() {
            self.make_room(upstream, arriving.len() as u64);
        }
        reserved
    }

    /// Gives back what was reserved for changes that are not made.
    pub fn give_back(&mut self, changes: &mut [Change], arriving: &mut [Arrival<'_>]) {
        // SAFETY: reserved under this lock, and nothing refers to any of it yet.
        unsafe {
            for change in changes {
                self.free(std::mem::replace(&mut change.reserved, ptr::null_mut()));
            }
            for arrival in arriving {
                if let Some(record) = NonNull::new(std::mem::replace(&mut arrival.record, ptr::null_mut())) {
                    self.free_server(record.as_ptr());
                }
            }
        }
    }

    /// The same; what was reserved before the zone was full stays so.
    fn try_reserve(&mut self, changes: &mut [Change], arriving: &mut [Arrival<'_>]) -> Result<(), Full> {
        for change in changes {
            // SAFETY: the lock is held, and the caller found the record under it.
            let server = unsafe { change.server.as_ref() };
            if change.reason.is_some() && server.reasons.is_null() {
                match self.alloc() {
                    Ok(room) => change.reserved = room,
                    // Back into service, or to what the file says, it goes without a reason: the log has it.
                    Err(_)
                        if change.terms.is_up() || change.terms.admin == Terms::from(server.base).admin => {}
                    Err(full) => return Err(full),
                }
            }
        }
        for arrival in arriving {
            arrival.record = self.new_server(&arrival.claim)?;
            if let Some(reason) = arrival.reason {
                let room = self.alloc()?;
                // SAFETY: the record was made above, and nobody else knows it.
                let record = unsafe { &mut *arrival.record };
                record.reasons = room;
                let [wish, _] = record.wishes;
                let reason = record.keep(reason, &wish);
                for wish in &mut record.wishes {
                    wish.reason = reason;
                }
            }
        }
        Ok(())
    }

    /// Links a new record, so that it is there from `revision` on.
    ///
    /// # Safety
    ///
    /// The record was reserved; the one whose place it takes, if any, is linked.
    unsafe fn link(&mut self, upstream: NonNull<Upstream>, arrival: &mut Arrival<'_>, revision: u64) {
        let (upstream, record) = (upstream.as_ptr(), arrival.record);
        // SAFETY: see above; the lock is held.
        unsafe {
            (*record).born = revision;
            for wish in &mut (*record).wishes {
                wish.revision = revision;
            }
            (*record).peer = arrival.peer;
            (*record).id = match arrival.heir_of {
                Some(heir_of) => (*heir_of.as_ptr()).id,
                None => {
                    let id = (*upstream).next_id;
                    (*upstream).next_id += 1;
                    id
                }
            };
            self.insert(upstream, record, arrival.heir_of);
            arrival.id = (*record).id;
        }
    }
}
