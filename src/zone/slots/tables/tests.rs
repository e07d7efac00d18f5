//! Against nginx's real lists and locks.

use std::ptr;

use crate::nginx::fixture;
use crate::nginx::shm::Word;
use crate::zone::Extra;
use crate::zone::backend::Backend;
use crate::zone::nginx_peers::{RawPeer, UpstreamConf};
use crate::zone::tests::{Server, upstream};

use super::super::Slots;
use super::*;

/// Settings with a ring as nginx makes it; they are never freed, as little as the list.
struct Hashed {
    /// The upstream.
    us: NonNull<UpstreamConf>,
    /// Its peers.
    zone: Zone,
    /// The settings.
    settings: NonNull<HashSettings>,
}

impl Hashed {
    /// The ring of these servers, each with weight 1.
    fn new(servers: &[&str]) -> Self {
        let list: Vec<Server<'_>> = servers.iter().map(|text| (*text, 80, 1)).collect();
        let (us, _) = upstream(&list, &[]);
        // SAFETY: the fixture made lists of peers; the settings are plain words, for which zeroes are a start.
        unsafe {
            let zone = Zone::of(us).unwrap();
            let peers: Vec<_> = zone.primary().peers().map(Peer::raw).collect();
            let ring = points::ring(servers.iter().map(|text| (text.as_bytes(), 1))).unwrap();
            let mut words = vec![ring.len() as u64];
            for point in ring {
                let server = &raw const (*peers[point.server()].as_ptr()).server;
                words.extend([u64::from(point.hash()), server.expose_provenance() as u64]);
            }
            let mut settings = Box::new(std::mem::zeroed::<HashSettings>());
            settings.ring = Box::leak(words.into_boxed_slice()).as_mut_ptr().cast();
            Self { us, zone, settings: NonNull::from(Box::leak(settings)) }
        }
    }

    /// The tables.
    fn tables(&self) -> Result<Option<Tables>, &'static str> {
        // SAFETY: the fixture made what nginx would.
        unsafe { Tables::of(self.us, Method::HashConsistent, self.settings.cast()) }
    }

    /// The settings.
    fn settings(&mut self) -> &mut HashSettings {
        // SAFETY: they are never freed, and only this test uses them.
        unsafe { self.settings.as_mut() }
    }

    /// The ring.
    fn head(&self) -> *mut RingHead {
        // SAFETY: likewise.
        unsafe { self.settings.as_ref().ring }
    }

    /// The word that says how many points it has.
    fn number(&mut self) -> &mut ngx_uint_t {
        // SAFETY: a ring begins with it.
        unsafe { &mut (*self.head()).number }
    }

    /// Its points.
    fn points(&mut self) -> &mut [RingPoint] {
        let head = self.head();
        // SAFETY: as many points follow the head.
        unsafe { std::slice::from_raw_parts_mut((&raw mut (*head).points).cast(), (*head).number) }
    }

    /// What the balancer would see of it.
    fn seen(&mut self) -> Vec<(u32, String)> {
        // SAFETY: a point's server lives as long as the ring.
        let text = |point: &RingPoint| unsafe { crate::zone::peers::bytes(*point.server) };
        let string = |point| String::from_utf8(text(point).to_vec()).unwrap();
        self.points().iter().map(|point| (point.hash, string(point))).collect()
    }

    /// A peer.
    fn peer(&mut self, at: usize) -> &mut RawPeer {
        // SAFETY: only this test uses the list.
        unsafe { self.zone.primary().peers().nth(at).unwrap().raw().as_mut() }
    }
}

/// The ring that nginx would make of these servers.
fn wanted(servers: &[(&str, u64)]) -> Vec<(u32, String)> {
    let ring = points::ring(servers.iter().map(|(text, weight)| (text.as_bytes(), *weight))).unwrap();
    ring.iter().map(|point| (point.hash(), servers[point.server()].0.to_owned())).collect()
}

#[test]
fn a_ring_follows_the_list_and_outlives_its_texts() {
    let mut hashed = Hashed::new(&["a:1", "b:2"]);
    let (zone, configured) = (hashed.zone, hashed.head());
    let tables = hashed.tables().unwrap().unwrap();
    // SAFETY: the zone is that of the upstream.
    let refresh = || unsafe { tables.refresh(&zone) };

    assert_eq!(refresh(), Some(0));
    assert!(hashed.head() != configured);
    assert_eq!(hashed.seen(), wanted(&[("a:1", 1), ("b:2", 1)]));

    // Another tenant: until it is refreshed, the ring has the text of the one before.
    let text = b"c:3";
    hashed.peer(1).server = ngx_str_t { len: text.len(), data: text.as_ptr().cast_mut() };
    hashed.peer(1).weight = 2;
    assert_eq!(hashed.seen(), wanted(&[("a:1", 1), ("b:2", 1)]));
    assert_eq!(refresh(), Some(0));
    assert_eq!(hashed.seen(), wanted(&[("a:1", 1), ("c:3", 2)]));

    for at in 0..2 {
        hashed.peer(at).weight = 0;
        hashed.peer(at).server.len = 0;
    }
    assert_eq!(refresh(), Some(0));
    assert_eq!(hashed.seen(), [(0, String::new())]);

    drop(tables);
    assert_eq!(hashed.head(), configured);
}

#[test]
fn a_ring_that_nginx_did_not_make_of_the_list_is_refused() {
    /// Spoils a ring.
    type Spoil = fn(&mut Hashed);
    let table: [(&str, Spoil); 7] = [
        ("settings of hash", |hashed| hashed.settings().ring = ptr::null_mut()),
        ("settings of hash", |hashed| hashed.settings().ring = hashed.head().wrapping_byte_add(1)),
        ("number of points of hash", |hashed| *hashed.number() = 0),
        ("number of points of hash", |hashed| *hashed.number() += 1),
        ("server of a point of hash", |hashed| {
            let name: *const ngx_str_t = &raw const hashed.peer(0).name;
            hashed.points()[7].server = name;
        }),
        ("order of the points of hash", |hashed| hashed.points().swap(3, 4)),
        ("order of the points of hash", |hashed| hashed.points()[4].hash = hashed.points()[3].hash),
    ];
    for (wanted, spoil) in table {
        let mut hashed = Hashed::new(&["a:1", "b:2"]);
        assert!(hashed.tables().is_ok());
        spoil(&mut hashed);
        assert_eq!(hashed.tables().err(), Some(wanted));
    }
}

/// Settings of `random`.
fn random(two: usize, ranges: *mut Range) -> NonNull<RandomSettings> {
    NonNull::from(Box::leak(Box::new(RandomSettings { two, ranges })))
}

/// An upstream with `random`, whose lists have so many slots, its settings, and its tables.
fn randomized(slots: usize) -> (Zone, NonNull<RandomSettings>, Tables) {
    let (us, shm) = upstream(&[("a", 1, 5), ("b", 2, 1), ("c", 3, 2)], &[("backup", 4, 9)]);
    let settings = random(1, ptr::null_mut());
    // SAFETY: the fixture made what nginx would, and the test is alone with it.
    unsafe {
        let tables = Tables::of(us, Method::Random, settings.cast()).unwrap().unwrap();
        let extra = Word::<Extra>::alloc(NonNull::new(fixture::pool(shm)).unwrap()).unwrap();
        let zone = Zone::of(us).unwrap().with_extra(extra);
        Slots::begin(&zone, [slots, 0]);
        (zone, settings, tables)
    }
}

/// The ranges of an upstream: which peer of the list each is for, and where it begins.
fn ranges(zone: &Zone, settings: NonNull<RandomSettings>, slots: usize) -> Vec<(Option<usize>, usize)> {
    // SAFETY: the test is alone with the list; there is a range for each slot.
    let (peers, ranges) = unsafe {
        let peers: Vec<_> = zone.primary().peers().map(|peer| peer.raw().as_ptr()).collect();
        (peers, std::slice::from_raw_parts(settings.as_ref().ranges, slots))
    };
    let place = |range: &Range| peers.iter().position(|peer| *peer == range.peer);
    ranges.iter().map(|range| (place(range), range.range)).collect()
}

#[test]
fn ranges_follow_the_list_and_are_as_many_as_it_can_have_peers() {
    let (zone, settings, tables) = randomized(6);
    assert!(tables.shown().is_none() && !tables.is_usable());
    // SAFETY: the zone is that of the upstream, with which the test is alone.
    unsafe {
        assert_eq!(tables.refresh(&zone), Some(0));
        assert!(tables.is_usable());
        let made = settings.as_ref().ranges;
        // What no peer is for names one all the same, where no sum of weights leads.
        let tail = [(Some(0), usize::MAX); 3];
        let with = |range: [(Option<usize>, usize); 3]| [range, tail].concat();
        assert_eq!(ranges(&zone, settings, 6), with([(Some(0), 0), (Some(1), 5), (Some(2), 6)]));

        (*(*zone.primary().raw().as_ptr()).peer).weight = 7;
        assert_eq!(tables.refresh(&zone), Some(0));
        assert_eq!(ranges(&zone, settings, 6), with([(Some(0), 0), (Some(1), 7), (Some(2), 8)]));
        assert_eq!(settings.as_ref().ranges, made, "they stay where they are");
        drop(tables);
        assert!(settings.as_ref().ranges.is_null());
    }
}

#[test]
fn ranges_without_memory_are_not_left_to_the_balancer() {
    for more in [usize::MAX / 2, 1 << 50] {
        let (zone, settings, tables) = randomized(6);
        // SAFETY: the test is alone with the words.
        unsafe {
            (*Own::of(&zone).unwrap().raw()).slots = [more, 0];
            assert_eq!(tables.refresh(&zone), None);
            assert!(!tables.is_usable() && settings.as_ref().ranges.is_null());
        }
    }
}

#[test]
fn ranges_are_not_made_while_the_lists_are_stuck() {
    let (zone, settings, tables) = randomized(6);
    // SAFETY: the test is alone with the list.
    unsafe {
        (*zone.primary().raw().as_ptr()).rwlock = !0;
        assert_eq!(tables.refresh(&zone), None);
        assert!(!tables.is_usable() && settings.as_ref().ranges.is_null());
    }
}

#[test]
fn settings_that_are_not_those_of_random_are_refused() {
    let (us, _) = upstream(&[("a", 1, 1)], &[]);
    for settings in [random(2, ptr::null_mut()), random(0, ptr::dangling_mut())] {
        // SAFETY: the settings are as long as those of random.
        let tables = unsafe { Tables::of(us, Method::Random, settings.cast()) };
        assert_eq!(tables.err(), Some("settings of random"));
    }
}

#[test]
fn other_methods_have_no_tables() {
    let (us, _) = upstream(&[("a", 1, 1)], &[]);
    for method in [Method::RoundRobin, Method::LeastConn, Method::IpHash, Method::Hash, Method::LeastTime] {
        // SAFETY: nothing is read.
        let tables = unsafe { Tables::of(us, method, NonNull::dangling()) };
        assert!(tables.is_ok_and(|tables| tables.is_none()), "{method:?}");
    }
}

/// Nothing waits for ever for a worker that died with the lock.
#[test]
fn tables_stay_as_they_are_while_the_lists_are_stuck() {
    let hashed = Hashed::new(&["a:1", "b:2"]);
    let tables = hashed.tables().unwrap().unwrap();
    // SAFETY: the zone is that of the upstream, with which the test is alone.
    unsafe {
        assert!(tables.refresh(&hashed.zone).is_some());
        let before = hashed.head();
        (*hashed.zone.primary().raw().as_ptr()).rwlock = !0;
        assert_eq!(tables.refresh(&hashed.zone), None);
        assert_eq!(hashed.head(), before);
    }
}
