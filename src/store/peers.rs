//! The live peer of each server, so that a change of one server need not look for it.
//!
//! A peer is a pointer into the zone of the upstream, which only processes of one configuration may follow. It is right
//! while nginx's count of changes to the lists is the one that was noted with it, and else found anew.

use std::ffi::c_void;
use std::ptr::{self, NonNull};

use crate::model::address::is_same;
use crate::model::id::Group;

use super::find::Found;
use super::index::Key;
use super::lock::Locked;
use super::records::{Server, UNKNOWN, Upstream};

/// A live peer: its list, its text, its address, and where it is.
pub type Live<'a> = (Group, &'a [u8], &'a [u8], *mut c_void);

impl Locked {
    /// Whether the peers of the servers are those that the lists had at this count of changes.
    pub fn knows_peers(&self, upstream: NonNull<Upstream>, membership: u64) -> bool {
        // SAFETY: records of upstreams are never freed; the lock is held.
        unsafe { (*upstream.as_ptr()).indexed == membership }
    }

    /// Notes that the peers of the servers are those of the lists at this count of changes.
    pub fn confirm_peers(&mut self, upstream: NonNull<Upstream>, membership: u64) {
        // SAFETY: likewise.
        unsafe { (*upstream.as_ptr()).indexed = membership };
    }

    /// Takes each server's peer from the lists as they are at this count of changes.
    pub fn note_peers<'a>(
        &mut self,
        upstream: NonNull<Upstream>,
        membership: u64,
        lists: impl Iterator<Item = Live<'a>>,
    ) {
        self.confirm_peers(upstream, UNKNOWN);
        for server in self.servers(upstream) {
            // SAFETY: the record is linked, and the lock is held.
            unsafe { (*server.as_ptr()).peer = ptr::null_mut() };
        }
        let mut finder = self.finder(upstream);
        for (group, server, name, peer) in lists {
            if let Some(record) = finder.find_new(group, server, name) {
                // SAFETY: likewise.
                unsafe { (*record.record().as_ptr()).peer = peer };
            }
        }
        self.confirm_peers(upstream, membership);
    }

    /// The peer of a server; null for none.
    pub fn peer(&self, server: NonNull<Server>) -> *mut c_void {
        // SAFETY: the record is linked, and the lock is held.
        unsafe { (*server.as_ptr()).peer }
    }

    /// The peer of the server before it in its list; null if that is not known.
    pub fn peer_before(&self, server: NonNull<Server>) -> *mut c_void {
        // SAFETY: likewise.
        let before =
            unsafe { (*server.as_ptr()).prev.as_ref().map(|prev| (prev, (*server.as_ptr()).backup)) };
        before.filter(|(prev, backup)| prev.backup == *backup).map_or(ptr::null_mut(), |(prev, _)| prev.peer)
    }

    /// The peer of the last server of a group; null if that is not known.
    pub fn last_peer(&self, upstream: NonNull<Upstream>, group: Group) -> *mut c_void {
        // SAFETY: likewise.
        let [primaries, backups] = unsafe { (*upstream.as_ptr()).last };
        let last = if group.is_backup() { backups } else { primaries };
        // SAFETY: likewise.
        unsafe { last.as_ref() }.map_or(ptr::null_mut(), |last| last.peer)
    }

    /// The server with this peer, whose address is `name`.
    pub fn server_of(
        &self,
        upstream: NonNull<Upstream>,
        name: &[u8],
        peer: *mut c_void,
    ) -> Option<Found<'_>> {
        let revision = self.revision(upstream);
        let mut candidates = self.candidates(upstream, Key::Name(name));
        candidates.find(|server| server.peer == peer && server.exists(revision)).map(Found::of)
    }

    /// Calls `found` with each server that has this text, or this address, and with each whose address is `other`
    /// if that is given: none twice.
    pub fn called<'a>(
        &'a self,
        upstream: NonNull<Upstream>,
        text: &[u8],
        other: Option<&[u8]>,
        mut found: impl FnMut(Found<'a>),
    ) {
        let revision = self.revision(upstream);
        let has_name = |server: &Server| {
            is_same(server.name(), text) || other.is_some_and(|other| is_same(server.name(), other))
        };
        let mut tell = |server: &'a Server| {
            if server.exists(revision) {
                found(Found::of(server));
            }
        };
        let address = other.unwrap_or(text);
        self.candidates(upstream, Key::Name(address)).filter(|server| has_name(server)).for_each(&mut tell);
        let of_text = self.candidates(upstream, Key::Text(text));
        of_text.filter(|server| is_same(server.server(), text) && !has_name(server)).for_each(&mut tell);
    }
}
