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
use crate::model::snapshot::{Faults, Method, Zombies};

use super::backend::{Backend, NoSeat};
use super::capacity::Planned;
use super::edits::{Edits, Touched};
use super::handle::Zone;
use super::lock::Lists;
use super::nginx_peers::{RawPeer, RawPeers, UpstreamConf};
use super::place::{Place, Sums};
use super::prepared::{Full, NewPeer};
use super::setting::Abilities;

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
        // SAFETY: the list is mapped as long as the zone; `config` is set once, before the workers start, and points into
        // the same zone. Other workers write the word under their locks, so it is read atomically.
        unsafe {
            let config = (*zone.primary.as_ptr()).config;
            if config.is_null() { 0 } else { AtomicU64::from_ptr(config.cast()).load(Ordering::Acquire) }
        }
    }

    unsafe fn moved(zone: &Zone) {
        // SAFETY: both write locks are held, as every writer of this word must; see `membership` for the pointer.
        unsafe {
            let config = (*zone.primary.as_ptr()).config;
            if !config.is_null() {
                AtomicU64::from_ptr(config.cast()).fetch_add(1, Ordering::Release);
            }
        }
    }

    fn refs(peer: &RawPeer) -> u64 {
        peer.refs as u64
    }

    fn managed(peer: &RawPeer) -> bool {
        !peer.host.is_null()
    }

    unsafe fn sums(_zone: &Zone, _group: Group, list: NonNull<RawPeers>) -> Sums {
        // SAFETY: see the trait.
        unsafe { Sums::of(list) }
    }

    #[inline]
    fn is_blank(_zone: &Zone, _peer: NonNull<RawPeer>) -> bool {
        false
    }

    fn prepare(zone: &Zone, new: &NewPeer<'_>, abilities: Abilities) -> Result<Prepared, Full> {
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
        zombies::key(prepared)
    }

    unsafe fn seat(
        zone: &Zone,
        _lists: &Lists,
        edits: &mut Edits<Prepared, PreparedList>,
    ) -> Result<(), NoSeat> {
        // A new peer brings its own, but one that was here before may have left requests behind.
        // SAFETY: see the trait.
        unsafe { zombies::seat(zone, edits) };
        Ok(())
    }

    unsafe fn edit(
        zone: &Zone,
        lists: &mut Lists,
        abilities: Abilities,
        edits: &mut Edits<Prepared, PreparedList>,
    ) -> Touched {
        let mut touched = Touched::default();
        // SAFETY: see the trait.
        unsafe {
            zombies::take_out(zone, edits);
            if let Some(backups) = &mut edits.backups {
                members::link_backups(lists, backups);
            }
            for (group, list) in lists.iter() {
                members::edit_list(zone, group, list, abilities, edits, &mut touched);
            }
            zombies::put_back(zone, edits);
        }
        touched
    }

    unsafe fn settle(zone: &Zone, lists: &Lists) {
        // SAFETY: see the trait.
        unsafe { members::set_single(zone, lists) };
    }

    unsafe fn has_left(_zone: &Zone, peer: NonNull<RawPeer>) -> bool {
        // SAFETY: a peer that is held is not freed; the word is written once, under locks, and read late at worst.
        unsafe { peer.as_ref() }.zombie() != 0
    }

    unsafe fn zombies(zone: &Zone, _lists: &Lists) -> Zombies {
        // SAFETY: see the trait.
        unsafe { zombies::count(zone) }
    }

    unsafe fn faults(_zone: &Zone, _lists: &Lists) -> Faults {
        Faults::default()
    }

    fn has_remains(zone: &Zone) -> bool {
        zombies::any(zone)
    }

    fn reap(zone: &Zone) {
        zombies::reap(zone);
    }
}
