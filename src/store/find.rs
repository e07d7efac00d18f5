//! Finding the record of a live peer.

use std::ptr::NonNull;

use crate::model::id::Group;

use super::lock::Locked;
use super::records::{Reason, Server, Upstream, Wish};

/// Finds records by list, text and address. Peers are mostly asked for in the order of the records, so that the one
/// after the last match is tried first.
pub struct Finder<'a> {
    /// The lock that keeps the records.
    locked: &'a Locked,
    /// The first record.
    first: *mut Server,
    /// The one after the last match.
    after: *mut Server,
}

/// A record, for as long as the lock is held.
#[derive(Clone, Copy)]
pub struct Found<'a> {
    /// The record.
    server: &'a Server,
}

impl Locked {
    /// Finds records of an upstream.
    pub fn finder(&self, upstream: NonNull<Upstream>) -> Finder<'_> {
        // SAFETY: records of upstreams are never freed; the lock is held.
        let first = unsafe { (*upstream.as_ptr()).servers };
        Finder { locked: self, first, after: first }
    }

    /// nginx's count of changes to the lists that the records were last compared with.
    pub fn membership(&self, upstream: NonNull<Upstream>) -> u64 {
        // SAFETY: records of upstreams are never freed; the lock is held.
        unsafe { (*upstream.as_ptr()).membership }
    }
}

impl<'a> Finder<'a> {
    /// The record of a peer.
    pub fn find(&mut self, group: Group, server: &[u8], name: &[u8]) -> Option<Found<'a>> {
        let found = self.find_from(self.after, group, server, name);
        let found = found.or_else(|| self.find_from(self.first, group, server, name))?;
        self.after = found.server.next;
        Some(found)
    }

    /// The first match from a record on.
    fn find_from(&self, mut at: *mut Server, group: Group, server: &[u8], name: &[u8]) -> Option<Found<'a>> {
        // SAFETY: the lock is held for 'a, so that linked records stay as they are.
        while let Some(record) = unsafe { at.as_ref() } {
            if record.group() == group
                && self.locked.text(&record.name) == name
                && self.locked.text(&record.server) == server
            {
                return Some(Found { server: record });
            }
            at = record.next;
        }
        None
    }
}

impl Found<'_> {
    /// Identity.
    pub fn id(&self) -> u64 {
        self.server.id
    }

    /// What is wanted of it, if its upstream is at `revision`.
    pub fn wish(&self, revision: u64) -> Wish {
        self.server.wish(revision)
    }

    /// Who wanted it.
    pub fn reason(&self, revision: u64) -> Option<Reason> {
        // SAFETY: a wish that counts has a whole reason in the zone, or none; the lock is held.
        unsafe { self.wish(revision).reason.as_ref() }.copied()
    }
}
