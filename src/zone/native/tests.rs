//! Peers that come, go and move, against nginx's real lists and its real slab.

mod returns;

use std::ptr::NonNull;

use crate::model::address::Address;
use crate::model::id::{Group, Slot};
use crate::model::params::Params;
use crate::model::server::{self, Terms};
use crate::model::snapshot::Method;
use crate::model::state::Admin;
use crate::nginx::fixture;
use crate::nginx::shm::Word;

use super::super::copy::Copy;
use super::super::nginx_peers::{RawPeer, RawPeers};
use super::super::peers::bytes;
use super::super::place::{Place, Spot};
use super::super::prepared::Full;
use super::super::setting::{Abilities, Setting};
use super::super::sums::Sums;
use super::super::tests::{Server, exact, spot, upstream};
use super::super::{Edits, Extra, Fate, Prepared, Zone};

/// Round robin in a core without sticky.
const ROUND_ROBIN: Abilities = Abilities { method: Method::RoundRobin, drains: false };

/// Peers with the module's words in their zone, and the zone's memory.
fn zone(primaries: &[Server<'_>], backups: &[Server<'_>]) -> (Zone, NonNull<nginx_sys::ngx_shm_zone_t>) {
    let (us, shm) = upstream(primaries, backups);
    // SAFETY: the fixture made lists of peers, in a zone that is never given back.
    unsafe {
        let zone = Zone::of(us).unwrap();
        let extra = Word::<Extra>::alloc(zone.pool().unwrap()).unwrap();
        (zone.with_extra(extra), shm)
    }
}

/// An address.
fn address(text: &str) -> Address {
    Address::parse(text).unwrap()
}

/// Makes a peer, or says that there is no room.
fn prepare(zone: &Zone, text: &str) -> Result<Prepared, Full> {
    let params = Params { weight: 2, ..Params::default() };
    let (text, address, terms) = (text.into(), address(text), Terms { admin: Admin::Up, params });
    zone.prepare(&server::Server { text, address, group: Group::Primary, terms }, ROUND_ROBIN)
}

/// Applies edits to the lists as they are.
fn apply(zone: &Zone, mut edits: Edits) {
    let lists = zone.write().unwrap();
    // SAFETY: one thread changes the lists, and the places are those of now.
    assert!(unsafe { lists.apply(ROUND_ROBIN, zone.membership(), &mut edits) }.is_some());
}

/// Adds a peer.
fn add(zone: &Zone, group: Group, text: &str) {
    let backups = if group.is_backup() { zone.prepare_backups().unwrap() } else { None };
    apply(zone, Edits { append: vec![(group, prepare(zone, text).unwrap())], backups, ..Edits::default() });
}

/// Removes a primary.
fn remove(zone: &Zone, index: usize) {
    let at = vec![(spot(zone, Slot { group: Group::Primary, index }), Fate::Leave)];
    apply(zone, Edits { at, ..Edits::default() });
}

/// The addresses in their order.
fn names(zone: &Zone) -> Vec<String> {
    let copy = zone.copy().unwrap();
    copy.rows.iter().map(|row| copy.string(&row.name)).collect()
}

/// The list of primaries.
fn list(zone: &Zone) -> *mut RawPeers {
    zone.primary().raw().as_ptr()
}

/// A primary.
fn peer(zone: &Zone, index: usize) -> *mut RawPeer {
    let lists = zone.read().unwrap();
    lists.peers(lists.primary()).nth(index).unwrap().raw().as_ptr()
}

#[test]
fn the_sums_are_exact_after_each_step() {
    let (zone, _) = zone(&[("a", 1, 1), ("b", 2, 2)], &[]);
    /// A step: its name, what it does, and the addresses after it.
    type Step = (&'static str, fn(&Zone), &'static [&'static str]);
    let steps: [Step; 6] = [
        (
            "append",
            |zone| add(zone, Group::Primary, "127.0.0.1:3"),
            &["127.0.0.1:1", "127.0.0.1:2", "127.0.0.1:3"],
        ),
        ("first", |zone| remove(zone, 0), &["127.0.0.1:2", "127.0.0.1:3"]),
        ("last", |zone| remove(zone, 1), &["127.0.0.1:2"]),
        ("only", |zone| remove(zone, 0), &[]),
        ("again", |zone| add(zone, Group::Primary, "[::1]:81"), &["[::1]:81"]),
        ("socket", |zone| add(zone, Group::Primary, "unix:/s"), &["[::1]:81", "unix:/s"]),
    ];
    for (name, step, wanted) in steps {
        let before = zone.membership();
        step(&zone);
        let copy = zone.copy().unwrap();
        assert_eq!(names(&zone), wanted, "{name}");
        assert!(exact(&copy.primary), "{name}: {:?}", copy.primary);
        assert_eq!(copy.single, wanted.len() == 1, "{name}");
        assert_eq!(zone.membership(), before + 1, "{name}");
    }
}

#[test]
fn another_address_takes_the_place_and_leaves_the_old_peer_as_it_was() {
    let (zone, _) = zone(&[("a", 1, 1), ("b", 2, 2), ("c", 3, 3)], &[]);
    let old = peer(&zone, 1);
    // SAFETY: a request holds the peer.
    unsafe {
        (*old).refs = 1;
        (*old).conns = 1;
    }
    let at = vec![(
        spot(&zone, Slot { group: Group::Primary, index: 1 }),
        Fate::Replace(prepare(&zone, "127.0.0.1:9").unwrap()),
    )];
    apply(&zone, Edits { at, ..Edits::default() });
    assert_eq!(names(&zone), ["127.0.0.1:1", "127.0.0.1:9", "127.0.0.1:3"]);
    let copy = zone.copy().unwrap();
    assert!(exact(&copy.primary));
    assert_eq!((copy.zombies.peers, copy.zombies.conns), (1, 1));
    zone.reap();
    assert!(zone.has_remains(), "a request still holds it");
    // SAFETY: the request is done: nginx's free.
    unsafe {
        assert_eq!(bytes((*old).name), b"127.0.0.1:2");
        (*old).conns = 0;
        (*old).refs -= 1;
    }
    zone.reap();
    assert!(!zone.has_remains());
}

#[test]
fn the_first_backup_makes_a_list_that_shares_the_count_of_changes() {
    let (zone, _) = zone(&[("a", 1, 1)], &[]);
    assert!(zone.copy().unwrap().single);
    add(&zone, Group::Backup, "127.0.0.1:8");
    let copy = zone.copy().unwrap();
    assert!(!copy.single);
    assert!(copy.backup.as_ref().is_some_and(exact));
    // SAFETY: the fixture's lists are read by one thread.
    unsafe {
        let (primary, backup) = (list(&zone), (*list(&zone)).next);
        assert_eq!((*backup).config, (*primary).config);
        assert_eq!((*backup).shpool, (*primary).shpool);
        assert_eq!((*backup).rwlock, 0);
    }
    let at = vec![(spot(&zone, Slot { group: Group::Backup, index: 0 }), Fate::Leave)];
    apply(&zone, Edits { at, ..Edits::default() });
    assert!(
        zone.copy().unwrap().single && zone.copy().unwrap().backup.is_some(),
        "an empty list of backups stays"
    );
}

#[test]
fn a_list_of_backups_that_came_meanwhile_is_used() {
    let (zone, shm) = zone(&[("a", 1, 1)], &[]);
    let spare = zone.prepare_backups().unwrap();
    add(&zone, Group::Backup, "127.0.0.1:8");
    let before = fixture::free_pages(shm);
    let append = vec![(Group::Backup, prepare(&zone, "127.0.0.1:9").unwrap())];
    apply(&zone, Edits { append, backups: spare, ..Edits::default() });
    assert_eq!(names(&zone), ["127.0.0.1:1", "127.0.0.1:8", "127.0.0.1:9"]);
    assert!(fixture::free_pages(shm) <= before);
}

#[test]
fn lists_that_others_changed_are_left_alone() {
    let (zone, _) = zone(&[("a", 1, 1), ("b", 2, 2)], &[]);
    let stale = zone.membership();
    remove(&zone, 0);
    let at = vec![(spot(&zone, Slot { group: Group::Primary, index: 0 }), Fate::Leave)];
    let mut edits = Edits { at, ..Edits::default() };
    // SAFETY: likewise.
    assert_eq!(unsafe { zone.write().unwrap().apply(ROUND_ROBIN, stale, &mut edits) }, None);
    assert_eq!(names(&zone), ["127.0.0.1:2"]);
}

#[test]
fn memory_that_runs_out_at_any_point_leaves_the_zone_as_it_was() {
    // Before each round one chunk less is free, in sizes that hit another of the allocations first.
    for size in [2048, 512, 128, 64, 32, 16, 8] {
        let (zone, shm) = zone(&[("a", 1, 1)], &[]);
        let mut peers = Vec::new();
        let full = loop {
            // SAFETY: the zone is the test's own; the chunk stays taken.
            let _ = unsafe { nginx_sys::ngx_slab_alloc(fixture::pool(shm), size) };
            let before = fixture::used(shm);
            match prepare(&zone, "unix:/a/path/that/is/longer/than/the/others") {
                Ok(peer) => peers.push(peer),
                Err(full) => {
                    assert_eq!(fixture::used(shm), before, "chunks of {size}");
                    break full;
                }
            }
        };
        assert!(full.needed > 500, "{full:?}");
        assert_eq!(names(&zone), ["127.0.0.1:1"]);
        drop(peers);
    }
}

#[test]
fn what_comes_and_goes_takes_no_memory() {
    let (zone, shm) = zone(&[("a", 1, 1)], &[]);
    let before = fixture::used(shm);
    for round in 0..200 {
        add(&zone, Group::Primary, "[2001:db8::1]:8080");
        remove(&zone, 1);
        zone.reap();
        assert_eq!(fixture::used(shm), before, "round {round}");
    }
    drop(prepare(&zone, "127.0.0.1:5"));
    drop(zone.prepare_backups());
    assert_eq!(fixture::used(shm), before);
}

#[test]
fn addresses_that_left_are_remembered_and_too_many_are_all() {
    let (zone, _) = zone(&[("a", 1, 1), ("b", 2, 1)], &[]);
    // SAFETY: the words lie in the fixture's zone; the peers are read by one thread.
    unsafe {
        let extra = zone.extra().unwrap().as_ref();
        let start = extra.departures();
        let (stays, leaves) = (peer(&zone, 0), peer(&zone, 1));
        remove(&zone, 1);
        let (left, now) = extra.left_since(start);
        assert!(left.has((*leaves).sockaddr, (*leaves).socklen));
        assert!(!left.has((*stays).sockaddr, (*stays).socklen));
        assert!(!extra.left_since(now).0.has((*leaves).sockaddr, (*leaves).socklen));
        for _ in 0..25 {
            add(&zone, Group::Primary, "127.0.0.1:7");
            remove(&zone, 1);
        }
        assert!(extra.left_since(now).0.has((*stays).sockaddr, (*stays).socklen), "too many to remember");
    }
}

/// Where the primaries are, in their order.
fn places(zone: &Zone) -> Vec<Place> {
    zone.copy().unwrap().rows.iter().map(|row| row.place).collect()
}

#[test]
fn a_peer_is_found_whatever_is_said_of_the_one_before_it() {
    let primary = |peer, before| Spot { group: Group::Primary, peer: Some(peer), before };
    for leaves in 0..4 {
        for hint in 0..5 {
            let (zone, _) = zone(&[("a", 1, 1), ("b", 2, 2), ("c", 3, 3), ("d", 4, 4)], &[]);
            let places = places(&zone);
            let at = vec![(primary(places[leaves], places.get(hint).copied()), Fate::Leave)];
            apply(&zone, Edits { at, ..Edits::default() });
            let left: Vec<_> = (1..=4).filter(|port| *port != leaves + 1).collect();
            let wanted: Vec<_> = left.iter().map(|port| format!("127.0.0.1:{port}")).collect();
            assert_eq!(names(&zone), wanted, "{leaves} {hint}");
            assert!(exact(&zone.copy().unwrap().primary));
        }
    }
}

#[test]
fn a_new_peer_is_the_last_whatever_is_said_of_the_last_one() {
    for hint in 0..4 {
        let (zone, _) = zone(&[("a", 1, 1), ("b", 2, 2), ("c", 3, 3)], &[]);
        let last = places(&zone).get(hint).copied();
        let append = vec![(Group::Primary, prepare(&zone, "127.0.0.1:9").unwrap())];
        apply(&zone, Edits { append, last: [last, None], ..Edits::default() });
        assert_eq!(names(&zone), ["127.0.0.1:1", "127.0.0.1:2", "127.0.0.1:3", "127.0.0.1:9"], "{hint}");
    }
}

#[test]
fn edits_in_any_order_with_any_hints_are_made() {
    let mut state = 0x9e37_79b9_u64;
    let mut below = |limit: usize| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        ((state >> 33) as usize) % limit
    };
    for round in 0..300 {
        let servers: Vec<_> = (1..=8).map(|port| ("s", port, 1)).collect();
        let (zone, _) = zone(&servers, &[]);
        let places = places(&zone);
        let mut model: Vec<_> = (1..=8).map(|port| Some(format!("127.0.0.1:{port}"))).collect();
        let (mut at, mut order) = (Vec::new(), (0..8).collect::<Vec<usize>>());
        for _ in 0..=below(8) {
            let index = order.swap_remove(below(order.len()));
            // Sometimes the right one, sometimes one that leaves too, sometimes none.
            let before = match below(3) {
                0 => None,
                1 => index.checked_sub(1).map(|before| places[before]),
                _ => Some(places[below(8)]),
            };
            let spot = Spot { group: Group::Primary, peer: Some(places[index]), before };
            at.push(if below(2) == 0 {
                model[index] = None;
                (spot, Fate::Leave)
            } else {
                model[index] = Some(format!("127.0.0.2:{}", index + 1));
                (spot, Fate::Replace(prepare(&zone, &format!("127.0.0.2:{}", index + 1)).unwrap()))
            });
        }
        let append = vec![(Group::Primary, prepare(&zone, "127.0.0.3:1").unwrap())];
        let last = [Some(places[below(8)]), None];
        let before = zone.membership();
        apply(&zone, Edits { at, append, last, ..Edits::default() });
        let wanted: Vec<_> = model.into_iter().flatten().chain(["127.0.0.3:1".to_owned()]).collect();
        assert_eq!(names(&zone), wanted, "{round}");
        assert!(exact(&zone.copy().unwrap().primary));
        assert_eq!(zone.membership(), before + 1);
    }
}

#[test]
fn nginx_counts_what_is_there() {
    let (zone, _) = zone(&[("a", 1, 1), ("b", 2, 2)], &[("c", 3, 5)]);
    let sums = |zone: &Zone| zone.read().unwrap().sums();
    assert_eq!(sums(&zone), Sums { number: 3, usable: 3, weight: 8 });
    let params = Params { weight: 4, ..Params::default() };
    let down = Setting { terms: Terms { admin: Admin::Down, params }, revive: false };
    let at = vec![(spot(&zone, Slot { group: Group::Primary, index: 0 }), Fate::Set(down))];
    apply(&zone, Edits { at, ..Edits::default() });
    assert_eq!(sums(&zone), Sums { number: 3, usable: 2, weight: 11 });
    remove(&zone, 1);
    assert_eq!(sums(&zone), Sums { number: 2, usable: 1, weight: 9 });
}

#[test]
fn one_peer_is_copied_within_the_room_that_there_is() {
    let (zone, _) = zone(&[("a", 1, 1), ("bb", 2, 2)], &[]);
    let place = places(&zone)[1];
    let slot = Slot { group: Group::Primary, index: 1 };
    for (rows, text, fits) in [(0, 64, false), (1, 12, false), (1, 13, true)] {
        let mut copy = Copy { rows: Vec::with_capacity(rows), ..Copy::default() };
        copy.text.reserve_exact(text);
        let lists = zone.read().unwrap();
        // SAFETY: one thread changes the lists, and the place is one of now.
        assert_eq!(unsafe { lists.copy_one(place, slot, &mut copy) }, fits, "{rows} {text}");
        drop(lists);
        assert_eq!(copy.rows.len(), usize::from(fits));
        for row in &copy.rows {
            assert_eq!(
                (copy.string(&row.server), copy.string(&row.name)),
                ("bb".into(), "127.0.0.1:2".into())
            );
            assert_eq!((row.slot, row.params.weight, row.place), (slot, 2, place));
        }
    }
}

#[test]
fn positions_are_those_of_the_primaries() {
    let (zone, _) = zone(&[("a", 1, 1), ("b", 2, 2)], &[("c", 3, 5)]);
    let lists = zone.read().unwrap();
    let names: Vec<_> = (0..3).map(|at| lists.nth(at).map(|(_, name)| name.to_vec())).collect();
    assert_eq!(names, [Some(b"127.0.0.1:1".to_vec()), Some(b"127.0.0.1:2".to_vec()), None]);
}
