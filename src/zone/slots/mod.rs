//! nginx before 1.27.3: servers come and go in slots, places that were made when the configuration was read.
//!
//! Slots are peers that are never freed, so that a pointer that nginx remembers stays true. One without a server is blank:
//! down, without a weight, and in no list, but in a chain of this module's. What changes under the write locks is who is
//! in a slot, and which slots are linked in a list.

#[cfg(test)]
#[cfg(feature = "nginx-objs")]
mod balancer_tests;
mod begin;
mod blanks;
mod members;
mod points;
mod prepared;
mod tables;
#[cfg(test)]
#[cfg(feature = "nginx-objs")]
mod tests;
pub(super) mod words;

use std::ffi::c_void;
use std::ptr::NonNull;
use std::sync::atomic::Ordering;

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

use blanks::Own;
use prepared::Prepared;
use tables::Tables;

/// The backend of nginx whose peers are neither counted by reference nor versioned.
pub struct Slots;

/// A list of backups that comes at run time: there is none, it is made with the slots.
pub enum Never {}

impl Backend for Slots {
    type Prepared = Prepared;
    type PreparedList = Never;
    type Tables = Tables;

    const NAMES_CHANGE: bool = true;
    const REFUSES_OLD: bool = false;

    unsafe fn begin(zone: &Zone, planned: Planned) -> bool {
        // SAFETY: see the trait.
        unsafe { begin::begin(zone, planned) }
    }

    unsafe fn tables(
        us: NonNull<UpstreamConf>,
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
        Own::of(zone).map_or(0, |own| own.membership().load(Ordering::Acquire))
    }

    fn moved(lists: &Writing) {
        if let Some(own) = Own::of(lists.zone()) {
            own.membership().fetch_add(1, Ordering::Release);
        }
    }

    fn refs(_peer: Peer<'_>) -> u64 {
        0
    }

    fn managed(_peer: Peer<'_>) -> bool {
        false
    }

    fn sums(zone: &Zone, group: Group, list: List<'_>) -> Sums {
        blanks::sums(zone, group, list)
    }

    #[inline]
    fn is_blank(zone: &Zone, peer: Peer<'_>) -> bool {
        blanks::is_blank(zone, peer)
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

    unsafe fn seat(lists: &Writing, edits: &mut Edits<Prepared, Never>) -> Result<(), NoSeat> {
        // SAFETY: see the trait.
        unsafe { members::seat(lists, edits) }
    }

    unsafe fn edit(lists: &mut Writing, abilities: Abilities, edits: &mut Edits<Prepared, Never>) -> Touched {
        let mut touched = Touched::default();
        for (group, list) in lists.iter_mut() {
            // SAFETY: see the trait.
            unsafe { members::edit_list(lists, group, list, abilities, edits, &mut touched) };
        }
        touched
    }

    fn settle(lists: &Writing) {
        members::settle(lists);
    }

    unsafe fn has_left(zone: &Zone, peer: NonNull<RawPeer>) -> bool {
        // While a request holds it nobody else can come into the slot, but the same server again.
        // SAFETY: slots are never freed.
        blanks::is_blank(zone, unsafe { Peer::new(peer) })
    }

    fn zombies(lists: &Lists) -> Zombies {
        members::zombies(lists)
    }

    fn faults(lists: &Lists) -> Faults {
        members::faults(lists)
    }

    fn has_remains(_zone: &Zone) -> bool {
        false
    }

    fn reap(_zone: &Zone) {}
}
