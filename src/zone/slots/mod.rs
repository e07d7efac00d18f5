//! nginx before 1.27.3: servers come and go in slots, places that were made when the configuration was read.
//!
//! Slots are peers that are never freed, so that a pointer that nginx remembers stays true. One without a server is blank:
//! down, without a weight, and in no list, but in a chain of this module's. What changes under the write locks is who is
//! in a slot, and which slots are linked in a list.

#[cfg(test)]
#[cfg(feature = "nginx-objs")]
mod balancer_tests;
mod blanks;
mod members;
mod points;
mod prepared;
mod tables;
#[cfg(test)]
#[cfg(feature = "nginx-objs")]
mod tests;

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

use prepared::Prepared;
use tables::Tables;

/// The backend of nginx whose peers are neither counted by reference nor versioned.
pub struct Slots;

/// What the module keeps in the zone of an upstream.
#[repr(C)]
pub struct Words {
    /// How often the lists changed.
    membership: AtomicU64,
    /// The blank slots of the primaries and of the backups, linked by their `next`: guarded by the locks of both lists.
    blanks: [*mut ngx_http_upstream_rr_peer_t; 2],
    /// The one blank slot that is linked among the primaries, with a weight of 1, while they have no server. Guarded
    /// likewise.
    sentinel: *mut ngx_http_upstream_rr_peer_t,
    /// How many backups there are. Guarded likewise.
    backups: usize,
    /// How many slots the primaries and the backups have, filled and blank.
    slots: [usize; 2],
    /// How many of each had a server at the start.
    configured: [usize; 2],
    /// The larger number of slots, if nginx has to be told to make room in requests for so many; else 0.
    noted: usize,
    /// The list of backups, where nginx made none.
    list: ngx_http_upstream_rr_peers_t,
    /// Whether some slots have less room for a text than `TEXT_SIZE`, since the zone was full.
    narrow: bool,
}

/// A list of backups that comes at run time: there is none, it is made with the slots.
pub enum Never {}

impl Slots {
    /// The module's words; none while the upstream is only read.
    fn words(zone: &Zone) -> Option<NonNull<Words>> {
        // SAFETY: the words lie in the zone; only an address is taken.
        zone.extra().and_then(|extra| NonNull::new(unsafe { &raw mut (*extra.as_ptr()).own }))
    }
}

impl Backend for Slots {
    type Prepared = Prepared;
    type PreparedList = Never;
    type Tables = Tables;
    type Words = Words;

    const NAMES_CHANGE: bool = true;
    const REFUSES_OLD: bool = false;

    unsafe fn begin(zone: &Zone, planned: Planned) -> bool {
        // SAFETY: see the trait.
        unsafe { blanks::begin(zone, planned) }
    }

    unsafe fn tables(
        us: NonNull<ngx_http_upstream_srv_conf_t>,
        method: Method,
        settings: NonNull<c_void>,
    ) -> Result<Option<Tables>, &'static str> {
        // SAFETY: see the trait.
        unsafe { Tables::of(us, method, settings) }
    }

    fn shown(tables: &Tables) -> Option<u64> {
        tables.shown()
    }

    unsafe fn refresh(tables: &Tables, zone: &Zone) -> Option<u64> {
        // SAFETY: see the trait.
        unsafe { tables.refresh(zone) }
    }

    fn is_usable(tables: &Tables) -> bool {
        tables.is_usable()
    }

    fn membership(zone: &Zone) -> u64 {
        // SAFETY: the words live as long as the zone, and this one is atomic.
        Self::words(zone).map_or(0, |words| unsafe { &(*words.as_ptr()).membership }.load(Ordering::Acquire))
    }

    unsafe fn moved(zone: &Zone) {
        if let Some(words) = Self::words(zone) {
            // SAFETY: likewise.
            unsafe { &(*words.as_ptr()).membership }.fetch_add(1, Ordering::Release);
        }
    }

    fn refs(_peer: &ngx_http_upstream_rr_peer_t) -> u64 {
        0
    }

    fn managed(_peer: &ngx_http_upstream_rr_peer_t) -> bool {
        false
    }

    unsafe fn sums(zone: &Zone, group: Group, list: NonNull<ngx_http_upstream_rr_peers_t>) -> Sums {
        // SAFETY: see the trait; the words live as long as the zone.
        let (sums, words) = unsafe { (Sums::of(list), Self::words(zone)) };
        let Some(words) = words else { return sums };
        // SAFETY: likewise.
        unsafe {
            if group.is_backup() {
                let number = (&raw const (*words.as_ptr()).backups).read_volatile() as u64;
                Sums { number, ..sums }
            } else {
                // The sentinel is no server.
                let sentinel = u64::from(!(&raw const (*words.as_ptr()).sentinel).read_volatile().is_null());
                let number = sums.number.saturating_sub(sentinel);
                Sums { number, weight: sums.weight.saturating_sub(sentinel), ..sums }
            }
        }
    }

    #[inline]
    fn is_blank(zone: &Zone, peer: NonNull<ngx_http_upstream_rr_peer_t>) -> bool {
        // Outside a zone are no slots, but the servers of upstreams that nobody wrote, which nginx gives no weight.
        // SAFETY: slots are never freed. Both words change under the write locks; without them they are read late at
        // worst.
        unsafe {
            ((&raw const (*peer.as_ptr()).weight).read_volatile() == 0 && zone.pool().is_some())
                || Self::words(zone).is_some_and(|words| {
                    (&raw const (*words.as_ptr()).sentinel).read_volatile() == peer.as_ptr()
                })
        }
    }

    fn prepare(zone: &Zone, new: &Server, abilities: Abilities) -> Result<Prepared, Full> {
        Prepared::new(zone, new, abilities)
    }

    fn name(prepared: &Prepared) -> Vec<u8> {
        prepared.name.clone()
    }

    fn place(prepared: &Prepared) -> Option<Place> {
        prepared.seat.get().map(Place)
    }

    fn key(_prepared: &Prepared) -> Option<u64> {
        None
    }

    fn prepare_backups(_zone: &Zone) -> Result<Option<Never>, Full> {
        Ok(None)
    }

    unsafe fn seat(zone: &Zone, lists: &Lists, edits: &mut Edits) -> Result<(), NoSeat> {
        // SAFETY: see the trait.
        unsafe { members::seat(zone, lists, edits) }
    }

    unsafe fn edit(zone: &Zone, lists: &mut Lists, abilities: Abilities, edits: &mut Edits) -> Touched {
        let mut touched = Touched::default();
        for (group, list) in lists.iter() {
            // SAFETY: see the trait.
            unsafe { members::edit_list(zone, group, list, abilities, edits, &mut touched) };
        }
        touched
    }

    unsafe fn settle(zone: &Zone, lists: &Lists) {
        // SAFETY: see the trait.
        unsafe { members::settle(zone, lists) };
    }

    unsafe fn has_left(zone: &Zone, peer: NonNull<ngx_http_upstream_rr_peer_t>) -> bool {
        // While a request holds it nobody else can come into the slot, but the same server again.
        Self::is_blank(zone, peer)
    }

    unsafe fn zombies(zone: &Zone, lists: &Lists) -> Zombies {
        // SAFETY: see the trait.
        unsafe { members::zombies(zone, lists) }
    }

    unsafe fn faults(zone: &Zone, lists: &Lists) -> Faults {
        // SAFETY: see the trait.
        unsafe { members::faults(zone, lists) }
    }

    fn has_remains(_zone: &Zone) -> bool {
        false
    }

    fn reap(_zone: &Zone) {}
}
