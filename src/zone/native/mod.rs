//! nginx 1.27.3 and newer: peers are counted by reference, and workers notice when the lists change.

mod members;
mod prepared;
mod sessions;
#[cfg(test)]
#[cfg(feature = "nginx-objs")]
mod tests;
mod zombies;

use std::ffi::c_void;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU64, Ordering};

use nginx_sys::{ngx_http_upstream_rr_peer_t, ngx_http_upstream_rr_peers_t, ngx_http_upstream_srv_conf_t};

use crate::model::id::Group;
use crate::model::server::Server;
use crate::model::snapshot::{Faults, Method, Zombies};

use super::apply::{Abilities, Edits, Touched};
use super::backend::{Backend, NoSeat};
use super::capacity::Planned;
use super::lock::Lists;
use super::peers::Zone;
use super::place::{Place, Sums};
use super::prepared::Full;

use prepared::{Prepared, PreparedList};
use zombies::Zombie;

/// The backend of nginx with `rr_peers_t.config` and `rr_peer_t.refs`.
pub struct Native;

/// Tables that have to be computed by the module: nginx does so itself.
pub enum Never {}

/// What the module keeps in the zone of an upstream.
#[repr(C)]
pub struct Words {
    /// Peers that left the primaries, and those that left the backups, and may still be in use, linked by their `next`:
    /// guarded by the write locks of both lists. The module holds a reference to each.
    zombies: [Zombie; 2],
}

impl Backend for Native {
    type Prepared = Prepared;
    type PreparedList = PreparedList;
    type Tables = Never;
    type Words = Words;

    // nginx copies it when servers may change.
    const NAMES_CHANGE: bool = false;
    const REFUSES_OLD: bool = true;

    unsafe fn begin(_zone: &Zone, _planned: Planned) -> bool {
        true
    }

    unsafe fn tables(
        _us: NonNull<ngx_http_upstream_srv_conf_t>,
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

    fn refs(peer: &ngx_http_upstream_rr_peer_t) -> u64 {
        peer.refs as u64
    }

    fn managed(peer: &ngx_http_upstream_rr_peer_t) -> bool {
        !peer.host.is_null()
    }

    unsafe fn sums(_zone: &Zone, _group: Group, list: NonNull<ngx_http_upstream_rr_peers_t>) -> Sums {
        // SAFETY: see the trait.
        unsafe { Sums::of(list) }
    }

    #[inline]
    fn is_blank(_zone: &Zone, _peer: NonNull<ngx_http_upstream_rr_peer_t>) -> bool {
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
        zombies::key(prepared)
    }

    unsafe fn seat(zone: &Zone, _lists: &Lists, edits: &mut Edits) -> Result<(), NoSeat> {
        // A new peer brings its own, but one that was here before may have left requests behind.
        // SAFETY: see the trait.
        unsafe { zombies::seat(zone, edits) };
        Ok(())
    }

    unsafe fn edit(zone: &Zone, lists: &mut Lists, abilities: Abilities, edits: &mut Edits) -> Touched {
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

    unsafe fn has_left(_zone: &Zone, peer: NonNull<ngx_http_upstream_rr_peer_t>) -> bool {
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
