//! Finding the record of a live peer.

use std::ptr::NonNull;
use std::sync::atomic::Ordering;

use crate::model::departures::{Departures, Left};
use crate::model::id::Group;

use super::index::Key;
use super::lock::Locked;
use super::records::{REMEMBERED, Reason, Server, Upstream, Wish};

/// Finds records by list, text and address, for a walk over peers: those that share all three have a record each. Peers
/// are mostly asked for in the order of the records, so that the one after the last match is tried first.
///
/// It marks in the records themselves which of them were found: there is one finder at a time.
pub struct Finder<'a> {
    /// The lock that keeps the records.
    locked: &'a Locked,
    /// The upstream.
    upstream: NonNull<Upstream>,
    /// The one after the last match.
    after: *mut Server,
    /// Revision of the upstream.
    revision: u64,
}

/// A record, for as long as the lock is held.
#[derive(Clone, Copy)]
pub struct Found<'a> {
    /// The record.
    server: &'a Server,
}

/// Servers that were removed or moved between two moments.
pub struct Gone(Left<REMEMBERED>);

impl Gone {
    /// Whether a server with this address was. If too many were to remember them, it may have been.
    pub fn has(&self, name: &[u8]) -> bool {
        self.0.has(Key::Name(name).hash())
    }
}

impl Locked {
    /// Finds records of an upstream, none of which was found yet.
    pub fn finder(&self, upstream: NonNull<Upstream>) -> Finder<'_> {
        for server in self.servers(upstream) {
            // SAFETY: the record is linked, and the lock is held.
            unsafe { server.as_ref() }.taken.set(0);
        }
        // SAFETY: records of upstreams are never freed; the lock is held.
        let first = unsafe { (*upstream.as_ptr()).servers };
        Finder { locked: self, upstream, after: first, revision: self.revision(upstream) }
    }

    /// Notes nginx's count of changes to the lists after a change that the records have, too.
    pub fn set_membership(&mut self, upstream: NonNull<Upstream>, membership: u64) {
        // SAFETY: likewise.
        unsafe { (*upstream.as_ptr()).membership.store(membership, Ordering::Release) };
    }

    /// nginx's count of changes to the lists that the records were last compared with.
    pub fn membership(&self, upstream: NonNull<Upstream>) -> u64 {
        // SAFETY: records of upstreams are never freed; the lock is held.
        unsafe { (*upstream.as_ptr()).membership.load(Ordering::Acquire) }
    }
}

impl<'a> Finder<'a> {
    /// The record of a peer: one that was not found yet, if there is any.
    pub fn find(&mut self, group: Group, server: &[u8], name: &[u8]) -> Option<Found<'a>> {
        self.find_new(group, server, name).or_else(|| self.search(group, server, name, |_| true))
    }

    /// The record of a peer, among those that were not found yet.
    pub(super) fn find_new(&mut self, group: Group, server: &[u8], name: &[u8]) -> Option<Found<'a>> {
        let found = self.search(group, server, name, |record| record.taken.get() == 0)?;
        found.server.taken.set(1);
        Some(found)
    }

    /// The record of a server with this address, whatever its list and its text are.
    pub fn find_address(&self, name: &[u8]) -> Option<Found<'a>> {
        self.of_address(name, |_| true)
    }

    /// The record of a server with this address, among those that `accept` takes.
    fn of_address(&self, name: &[u8], accept: impl Fn(&Server) -> bool) -> Option<Found<'a>> {
        let mut candidates = self.locked.candidates(self.upstream, Key::Name(name));
        let found =
            candidates.find(|record| accept(record) && record.exists(self.revision) && record.name() == name);
        found.map(Found::of)
    }

    /// The record of a peer, among those that `accept` takes.
    fn search(
        &mut self,
        group: Group,
        server: &[u8],
        name: &[u8],
        accept: impl Fn(&Server) -> bool,
    ) -> Option<Found<'a>> {
        let matches = |record: &&Server| {
            accept(record)
                && record.exists(self.revision)
                && record.group() == group
                && record.name() == name
                && record.server() == server
        };
        // SAFETY: the lock is held for 'a, so that linked records stay as they are.
        let after = unsafe { self.after.as_ref() }.filter(|record| matches(record));
        let server = after.or_else(|| {
            self.locked.candidates(self.upstream, Key::Name(name)).find(|record| matches(record))
        })?;
        self.after = server.next;
        Some(Found::of(server))
    }
}

impl Locked {
    /// Compares the records of an upstream with rows of list, text and address: says of each row whether it has a
    /// record, and calls `missing` with each record that has no row, unless nginx makes its peers. If the rows are
    /// those of another configuration, those that have no record so may have one by their address. `missing` must not
    /// allocate.
    pub fn compare<'a>(
        &self,
        upstream: NonNull<Upstream>,
        rows: impl Iterator<Item = (Group, &'a [u8], &'a [u8])> + Clone,
        are_others: bool,
        found: &mut [bool],
        mut missing: impl FnMut(Found<'_>),
    ) {
        let mut finder = self.finder(upstream);
        for ((group, server, name), found) in rows.clone().zip(&mut *found) {
            *found = finder.find_new(group, server, name).is_some();
        }
        for ((_, _, name), found) in rows.zip(found).filter(|(_, found)| are_others && !**found) {
            let record = finder.of_address(name, |record| record.taken.get() == 0);
            *found = record.is_some_and(|record| record.server.taken.replace(1) == 0);
        }
        for server in self.servers(upstream) {
            // SAFETY: the record is linked, and the lock is held.
            let server = unsafe { server.as_ref() };
            if server.taken.get() == 0 && server.managed == 0 {
                missing(Found::of(server));
            }
        }
    }

    /// How many servers were removed or moved by changes of the run time.
    pub fn departures(&self, upstream: NonNull<Upstream>) -> Departures {
        // SAFETY: records of upstreams are never freed; the lock is held.
        unsafe { (*upstream.as_ptr()).departed.count() }
    }

    /// The servers that were so since a moment.
    pub fn gone_since(&self, upstream: NonNull<Upstream>, then: Departures) -> Gone {
        // SAFETY: likewise.
        Gone(unsafe { (*upstream.as_ptr()).departed.since(then) }.0)
    }

    /// Whether anything was wanted of any server of an upstream after a revision.
    pub fn wants_since(&self, upstream: NonNull<Upstream>, since: u64) -> bool {
        let revision = self.revision(upstream);
        // SAFETY: the records are linked, and the lock is held.
        self.servers(upstream).any(|server| unsafe { server.as_ref() }.wish(revision).revision > since)
    }

    /// What is wanted of a server.
    pub fn wish(&self, upstream: NonNull<Upstream>, server: NonNull<Server>) -> Wish {
        // SAFETY: the record is linked, and the lock is held.
        unsafe { server.as_ref() }.wish(self.revision(upstream))
    }

    /// A server by its record.
    pub fn found(&self, server: NonNull<Server>) -> Found<'_> {
        // SAFETY: the record is linked, and the lock is held.
        Found::of(unsafe { server.as_ref() })
    }

    /// Who asked for the state of a server.
    pub fn reason(&self, upstream: NonNull<Upstream>, server: NonNull<Server>) -> Option<Reason> {
        // SAFETY: the record is linked, and the lock is held.
        Found::of(unsafe { server.as_ref() }).reason(self.revision(upstream))
    }
}

impl<'a> Found<'a> {
    /// The record.
    pub(super) fn of(server: &'a Server) -> Self {
        Self { server }
    }

    /// Where the record is.
    pub fn record(&self) -> NonNull<Server> {
        NonNull::from(self.server)
    }
}

impl Found<'_> {
    /// Which list it belongs to.
    pub fn group(&self) -> Group {
        self.server.group()
    }

    /// Text of the server.
    pub fn server(&self) -> &[u8] {
        self.server.server()
    }

    /// Its address.
    pub fn name(&self) -> &[u8] {
        self.server.name()
    }

    /// Identity.
    pub fn id(&self) -> u64 {
        self.server.id
    }

    /// What is wanted of it, if its upstream is at `revision`.
    pub fn wish(&self, revision: u64) -> Wish {
        self.server.wish(revision)
    }

    /// Whether it came by a change of the run time after revision `since`.
    pub fn came_after(&self, since: u64) -> bool {
        self.server.came_after(since)
    }

    /// Who wanted it.
    pub fn reason(&self, revision: u64) -> Option<Reason> {
        self.server.reason(&self.wish(revision))
    }
}
