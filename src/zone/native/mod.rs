//! nginx 1.27.3 and newer: peers are counted by reference, and workers notice when the lists change.

mod members;
mod prepared;
mod sessions;
#[cfg(test)]
#[cfg(feature = "nginx-objs")]
mod tests;
pub(super) mod words;
mod zombies;

use std::ffi::c_void;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::model::id::Group;
use crate::model::server::Server;
use crate::model::snapshot::{Faults, Method, Zombies};

use super::backend::{Backend, NoSeat};
use super::capacity::Planned;
use super::edits::{Edits, Touched};
use super::handle::Zone;
use super::lock::{Lists, Writing};
use super::nginx_peers::{RawPeer, UpstreamConf};
use super::peers::{List, Peer};
use super::place::Place;
use super::prepared::Full;
use super::setting::Abilities;
use super::sums::Sums;

use prepared::{Prepared, PreparedList};

/// The backend of nginx with `rr_peers_t.config` and `rr_peer_t.refs`.
pub struct Native;

/// Tables that have to be computed by the module: nginx does so itself.
pub enum Never {}

impl Backend for Native {
    type Prepared = Prepared;
    type PreparedList = PreparedList;
    type Tables = Never;

    // nginx copies it when servers may change.
    const NAMES_CHANGE: bool = false;
    const REFUSES_OLD: bool = true;

    unsafe fn begin(_zone: &Zone, _planned: Planned) -> bool {
        true
    }

    unsafe fn tables(
        _us: NonNull<UpstreamConf>,
        _method: Method,
        _settings: NonNull<c_void>,
    ) -> Result<Option<Never>, &'static str> {
        Ok(None)
    }

    fn shown(tables: &Never) -> Option<u64> {
        match *tables {}
    }

    unsafe fn refresh(tables: &Never, _zone: &Zone) -> Option<u64> {
        match *tables {}
    }

    fn is_usable(tables: &Never) -> bool {
        match *tables {}
    }

    fn membership(zone: &Zone) -> u64 {
        count_of_changes(zone).map_or(0, |count| count.load(Ordering::Acquire))
    }

    fn moved(lists: &Writing) {
        if let Some(count) = count_of_changes(lists.zone()) {
            count.fetch_add(1, Ordering::Release);
        }
    }

    fn refs(peer: Peer<'_>) -> u64 {
        // SAFETY: the peer stays while it is looked at.
        unsafe { (&raw const (*peer.raw().as_ptr()).refs).read_volatile() as u64 }
    }

    fn managed(peer: Peer<'_>) -> bool {
        // SAFETY: likewise; the word is written before the peer is linked.
        unsafe { !(*peer.raw().as_ptr()).host.is_null() }
    }

    fn sums(_zone: &Zone, _group: Group, list: List<'_>) -> Sums {
        Sums::of(list)
    }

    #[inline]
    fn is_blank(_zone: &Zone, _peer: Peer<'_>) -> bool {
        false
    }

    fn prepare(zone: &Zone, new: &Server, abilities: Abilities) -> Result<Prepared, Full> {
        Prepared::new(zone, new, abilities)
    }

    fn name(prepared: &Prepared) -> Vec<u8> {
        prepared.name()
    }

    fn place(prepared: &Prepared) -> Option<Place> {
        prepared.place()
    }

    fn prepare_backups(zone: &Zone) -> Result<Option<PreparedList>, Full> {
        PreparedList::new(zone)
    }

    fn key(prepared: &Prepared) -> Option<u64> {
        prepared.key()
    }

    unsafe fn seat(lists: &Writing, edits: &mut Edits<Prepared, PreparedList>) -> Result<(), NoSeat> {
        // A new peer brings its own, but one that was here before may have left requests behind.
        // SAFETY: see the trait.
        unsafe { zombies::seat(lists, edits) };
        Ok(())
    }

    unsafe fn edit(
        lists: &mut Writing,
        abilities: Abilities,
        edits: &mut Edits<Prepared, PreparedList>,
    ) -> Touched {
        let mut touched = Touched::default();
        zombies::take_out(lists, edits);
        if let Some(backups) = &mut edits.backups {
            members::link_backups(lists, backups);
        }
        for (group, list) in lists.iter_mut() {
            // SAFETY: see the trait.
            unsafe { members::edit_list(lists, group, list, abilities, edits, &mut touched) };
        }
        // SAFETY: the seats were found under these locks.
        unsafe { zombies::put_back(lists, edits) };
        touched
    }

    fn settle(lists: &Writing) {
        members::set_single(lists);
    }

    unsafe fn has_left(_zone: &Zone, peer: NonNull<RawPeer>) -> bool {
        // SAFETY: a peer that is held is not freed; the word is written once, under locks, and read late at worst.
        unsafe { RawPeer::zombie_raw(peer.as_ptr()) != 0 }
    }

    fn zombies(lists: &Lists) -> Zombies {
        zombies::count(lists)
    }

    fn faults(_lists: &Lists) -> Faults {
        Faults::default()
    }

    fn has_remains(zone: &Zone) -> bool {
        zombies::any(zone)
    }

    fn reap(zone: &Zone) {
        zombies::reap(zone);
    }
}

/// nginx's count of changes to the lists; none outside a zone.
fn count_of_changes(zone: &Zone) -> Option<&AtomicU64> {
    // SAFETY: the list is mapped as long as the zone; `config` is set once, before the workers start, and points into the
    // same zone. Other workers write the word under their locks, so that it is used atomically.
    unsafe {
        let config = (*zone.primary().raw().as_ptr()).config;
        NonNull::new(config).map(|config| AtomicU64::from_ptr(config.as_ptr().cast()))
    }
}
