//! Against nginx's real lists and locks.

use std::ptr::NonNull;

use nginx_sys::{
    ngx_shm_zone_t, ngx_slab_alloc, ngx_slab_calloc, ngx_slab_pool_t, ngx_sockaddr_t, ngx_str_t, sockaddr_in,
};

use crate::model::id::{Group, Slot};
use crate::model::params::Params;
use crate::model::server::Terms;
use crate::model::snapshot::{Method, Totals};
use crate::model::state::Admin;
use crate::nginx::fixture;
use crate::nginx::shm::Word;

use super::backend::Backend;
use super::capacity::Planned;
use super::nginx_peers::{RawPeer, RawPeers, UpstreamConf};
use super::setting::{Abilities, Setting, admin_of};
use super::{Current, Edits, Extra, Fate, Spot, Zone, layout};

/// Round robin in a core without sticky.
const ROUND_ROBIN: Abilities = Abilities { method: Method::RoundRobin, drains: false };

/// Three primaries and a backup.
fn zone() -> Zone {
    let (us, _) = upstream(&[("a", 1, 1), ("b", 2, 2), ("c", 3, 3)], &[("d", 4, 4)]);
    // SAFETY: the fixture made lists of peers, and nobody else knows their zone.
    unsafe {
        let zone = Zone::of(us).unwrap();
        let zone = zone.with_extra(Word::<Extra>::alloc(zone.pool().unwrap()).unwrap());
        assert!(Current::begin(&zone, Planned::default()));
        zone
    }
}

/// A place among the primaries.
fn primary(index: usize) -> Slot {
    Slot { group: Group::Primary, index }
}

/// A setting that brings nothing up.
fn setting(admin: Admin, weight: u64) -> Setting {
    let params = Params { weight, ..Params::default() };
    Setting { terms: Terms { admin, params }, revive: false }
}

/// Where the peer is that stands at a place.
pub(super) fn spot(zone: &Zone, slot: Slot) -> Spot {
    let copy = zone.copy().unwrap();
    let row = copy.rows.iter().find(|row| row.slot == slot).unwrap();
    Spot { peer: Some(row.place), ..Spot::unknown(slot.group) }
}

/// Sets peers; false if the lists are no longer those of `membership`.
fn set(zone: &Zone, abilities: Abilities, membership: u64, settings: Vec<(Slot, Setting)>) -> bool {
    let at = settings.into_iter().map(|(slot, setting)| (spot(zone, slot), Fate::Set(setting))).collect();
    let mut edits = Edits { at, ..Edits::default() };
    // SAFETY: one thread changes the lists, and the places are those of now.
    unsafe { zone.write().unwrap().apply(abilities, membership, &mut edits) }.is_some()
}

/// Whether nginx's numbers are those counted.
pub fn exact(totals: &Totals) -> bool {
    totals.number == totals.counted
        && totals.total_weight == totals.counted_weight
        && totals.tries == totals.counted_usable
}

#[test]
fn a_copy_has_every_peer_and_its_texts() {
    let copy = zone().copy().unwrap();
    let texts: Vec<_> =
        copy.rows.iter().map(|row| (copy.string(&row.server), copy.string(&row.name))).collect();
    let wanted = [("a", "127.0.0.1:1"), ("b", "127.0.0.1:2"), ("c", "127.0.0.1:3"), ("d", "127.0.0.1:4")];
    assert_eq!(texts, wanted.map(|(server, name)| (server.to_owned(), name.to_owned())));
    assert!(exact(&copy.primary) && copy.backup.as_ref().is_some_and(exact));
    assert_eq!(copy.rows.last().map(|row| row.slot), Some(Slot { group: Group::Backup, index: 0 }));
}

#[test]
fn a_copy_with_long_texts_finds_room() {
    let long = "x".repeat(900);
    let servers: Vec<_> = (1..=8).map(|port| (long.as_str(), port, 1)).collect();
    // SAFETY: the fixture made lists of peers.
    let copy = unsafe { Zone::of(upstream(&servers, &[]).0) }.unwrap().copy().unwrap();
    assert_eq!(copy.rows.len(), 8);
    assert!(copy.rows.iter().all(|row| copy.bytes(&row.server) == long.as_bytes()));
}

#[test]
fn sums_stay_exact_over_every_change() {
    let zone = zone();
    let steps = [
        (0, Admin::Down, 1),
        (0, Admin::Down, 9),
        (1, Admin::Drain, 2),
        (0, Admin::Up, 5),
        (2, Admin::Up, 1),
        (1, Admin::Up, 2),
    ];
    for (index, admin, weight) in steps {
        assert!(set(&zone, ROUND_ROBIN, zone.membership(), vec![(primary(index), setting(admin, weight))]));
        let copy = zone.copy().unwrap();
        assert!(exact(&copy.primary), "{index} {admin:?} {weight}: {:?}", copy.primary);
        assert_eq!(copy.rows[index].params.weight, weight);
    }
    assert_eq!(zone.copy().unwrap().primary.tries, 3);
}

#[test]
fn several_peers_change_at_once_in_both_lists() {
    let zone = zone();
    let backup = Slot { group: Group::Backup, index: 0 };
    let settings = vec![
        (primary(0), setting(Admin::Down, 1)),
        (primary(2), setting(Admin::Up, 7)),
        (backup, setting(Admin::Down, 4)),
    ];
    assert!(set(&zone, ROUND_ROBIN, zone.membership(), settings));
    let copy = zone.copy().unwrap();
    assert_eq!(copy.rows.iter().map(|row| row.down).collect::<Vec<_>>(), [1, 0, 0, 1]);
    assert_eq!(copy.rows[2].params.weight, 7);
    assert!(exact(&copy.primary) && copy.backup.as_ref().is_some_and(exact));
}

#[test]
fn draining_is_8_where_the_core_knows_it_and_down_elsewhere() {
    for (drains, word) in [(true, 8), (false, 1)] {
        let (zone, abilities) = (zone(), Abilities { drains, ..ROUND_ROBIN });
        set(&zone, abilities, zone.membership(), vec![(primary(0), setting(Admin::Drain, 1))]);
        let down = zone.copy().unwrap().rows[0].down;
        assert_eq!(down, word);
        assert_eq!(abilities.admin(Admin::Drain, down), Admin::Drain);
        assert_eq!(abilities.admin(Admin::Up, down), if drains { Admin::Drain } else { Admin::Down });
    }
}

#[test]
fn bits_of_others_stay_in_the_word() {
    let (zone, drains) = (zone(), Abilities { drains: true, ..ROUND_ROBIN });
    // SAFETY: the fixture linked the peer; one thread writes it.
    unsafe { (*(*zone.primary().raw().as_ptr()).peer).down = 2 };
    let word = || zone.copy().unwrap().rows[0].down;
    for (abilities, admin, wanted) in [
        (ROUND_ROBIN, Admin::Down, 3),
        (drains, Admin::Drain, 10),
        (drains, Admin::Down, 3),
        (drains, Admin::Up, 2),
    ] {
        set(&zone, abilities, zone.membership(), vec![(primary(0), setting(admin, 1))]);
        assert_eq!((word(), admin_of(word()), abilities.admin(admin, word())), (wanted, admin, admin));
    }
    assert_eq!(zone.copy().unwrap().primary.counted_usable, 2);
}

#[test]
fn peers_are_found_by_text_and_address() {
    let zone = zone();
    zone.write().unwrap().apply_by_name(ROUND_ROBIN, |group, server, name| {
        (group == Group::Primary && server == b"b" && name == b"127.0.0.1:2").then(|| setting(Admin::Down, 2))
    });
    assert_eq!(zone.copy().unwrap().rows.iter().map(|row| row.down).collect::<Vec<_>>(), [0, 1, 0, 0]);
}

#[cfg(nginx_peer_refs)]
#[test]
fn only_cached_weights_move_the_count_of_changes() {
    let table = [
        (Method::RoundRobin, false),
        (Method::LeastConn, false),
        (Method::IpHash, false),
        (Method::Hash, false),
        (Method::HashConsistent, true),
        (Method::Random, true),
    ];
    for (method, moves) in table {
        let (zone, abilities) = (zone(), Abilities { method, drains: false });
        let before = zone.membership();
        set(&zone, abilities, before, vec![(primary(0), setting(Admin::Down, 1))]);
        assert_eq!(zone.membership(), before, "{method:?}: down");
        set(&zone, abilities, before, vec![(primary(0), setting(Admin::Down, 2))]);
        assert_eq!(zone.membership() != before, moves, "{method:?}: weight");
        assert_eq!(
            set(&zone, abilities, before, vec![(primary(0), setting(Admin::Up, 3))]),
            !moves,
            "{method:?}: stale"
        );
        assert_eq!(zone.copy().unwrap().rows[0].params.weight, if moves { 2 } else { 3 }, "{method:?}");
    }
}

#[test]
fn the_walk_at_start_finds_lists_that_are_not_as_compiled() {
    assert_eq!(layout::check(&zone()), Ok(()));
    /// Spoils a list.
    type Spoil = fn(&mut RawPeers);
    /// The first peer of a list of a fixture.
    fn first(list: &mut RawPeers) -> &mut RawPeer {
        // SAFETY: the fixture linked it.
        unsafe { &mut *list.peer }
    }
    let spoil: [(&str, Spoil); 6] = [
        ("number of peers", |list| list.number += 1),
        ("end of the list of peers", |list| list.number -= 1),
        ("sum of the weights", |list| list.total_weight += 1),
        ("number of usable peers", |list| list.tries += 1),
        ("name of a peer", |list| first(list).name.len = 1 << 40),
        ("address of a peer", |list| first(list).socklen = 4096),
    ];
    for (wanted, spoil) in spoil {
        let (us, _) = upstream(&[("a", 1, 1), ("b", 2, 2)], &[]);
        // SAFETY: the fixture made lists of peers.
        unsafe {
            spoil(&mut *(*us.as_ptr()).peer.data.cast());
            assert_eq!(layout::check(&Zone::of(us).unwrap()), Err(wanted));
        }
    }
}

/// A peer of a test: server text, port on 127.0.0.1, weight.
pub type Server<'a> = (&'a str, u16, isize);

/// An upstream with these primaries and backups, and its zone of 16 pages.
pub fn upstream(
    primaries: &[Server<'_>],
    backups: &[Server<'_>],
) -> (NonNull<UpstreamConf>, NonNull<ngx_shm_zone_t>) {
    let zone = fixture::shm_zone(16);
    let primary = list(zone, primaries);
    // SAFETY: the lists are new; the structure is plain words, for which zeroes are a start.
    unsafe {
        if !backups.is_empty() {
            (*primary).next = list(zone, backups);
        }
        let single = primaries.len() == 1 && backups.is_empty();
        RawPeers::set_single_raw(primary, u32::from(single));
        let us = Box::leak(Box::new(std::mem::zeroed::<UpstreamConf>()));
        us.peer.data = primary.cast();
        (NonNull::from(us), zone)
    }
}

/// A list of peers, as nginx's zone module leaves it.
fn list(zone: NonNull<ngx_shm_zone_t>, servers: &[Server<'_>]) -> *mut RawPeers {
    let pool = fixture::pool(zone);
    // SAFETY: the pool is a test's own; each chunk is as long as what is written to it.
    unsafe {
        let list = calloc::<RawPeers>(pool);
        (*list).shpool = pool;
        #[cfg(nginx_peer_refs)]
        {
            (*list).config = calloc::<usize>(pool);
        }
        let mut link = &raw mut (*list).peer;
        for (text, port, weight) in servers {
            let peer = calloc::<RawPeer>(pool);
            let address = calloc::<ngx_sockaddr_t>(pool);
            (*address).sockaddr_in.sin_family = libc::AF_INET as _;
            (*address).sockaddr_in.sin_port = port.to_be();
            (*address).sockaddr_in.sin_addr.s_addr = u32::from_ne_bytes([127, 0, 0, 1]);
            (*peer).sockaddr = address.cast();
            (*peer).socklen = size_of::<sockaddr_in>() as _;
            (*peer).name = string(pool, &format!("127.0.0.1:{port}"));
            (*peer).server = string(pool, text);
            (*peer).weight = *weight;
            (*peer).effective_weight = *weight;
            (*peer).max_fails = 1;
            (*peer).fail_timeout = 10;
            (*list).number += 1;
            (*list).total_weight += *weight as usize;
            (*list).tries += 1;
            *link = peer;
            link = &raw mut (*peer).next;
        }
        list
    }
}

/// Zeroes for a T in a pool.
unsafe fn calloc<T>(pool: *mut ngx_slab_pool_t) -> *mut T {
    // SAFETY: the pool is a test's own.
    let chunk = unsafe { ngx_slab_calloc(pool, size_of::<T>()) }.cast::<T>();
    assert!(!chunk.is_null());
    chunk
}

/// A string in a pool.
unsafe fn string(pool: *mut ngx_slab_pool_t, text: &str) -> ngx_str_t {
    // SAFETY: the pool is a test's own; the chunk is as long as the text.
    unsafe {
        let data = ngx_slab_alloc(pool, text.len()).cast::<u8>();
        assert!(!data.is_null());
        data.copy_from_nonoverlapping(text.as_ptr(), text.len());
        ngx_str_t { len: text.len(), data }
    }
}
