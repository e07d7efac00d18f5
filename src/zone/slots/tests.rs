//! Random edits of slots against nginx's real lists and its real slab, while requests hold some of them.
//!
//! They need the objects of an nginx before 1.27.3: `make unit-with`.

use std::collections::BTreeSet;
use std::ptr::NonNull;

use nginx_sys::ngx_slab_calloc;

use crate::model::address::Address;
use crate::model::id::Group;
use crate::model::params::Params;
use crate::model::server::{Server, Terms};
use crate::model::snapshot::{Faults, Method};
use crate::model::state::Admin;
use crate::nginx::fixture;
use crate::nginx::shm::Word;

use super::super::backend::Backend;
use super::super::nginx_peers::{RawPeer, RawPeers};
use super::super::peers::{Peers, bytes};
use super::super::place::{Place, Spot};
use super::super::prepared::name_size;
use super::super::setting::{Abilities, Setting};
use super::super::tests::{exact, upstream};
use super::super::{Edits, Extra, Fate, Prepared, Zone};
use super::Slots;
use super::blanks::Own;

/// Round robin.
pub(super) const ROUND_ROBIN: Abilities = Abilities { method: Method::RoundRobin, drains: false };

/// More slots than any list of these tests has.
pub(super) const MANY: usize = 500;

/// Both lists.
const GROUPS: [Group; 2] = [Group::Primary, Group::Backup];

/// Chance, the same in each run.
pub(super) struct Dice(pub u64);

impl Dice {
    /// A number below `sides`.
    pub fn roll(&mut self, sides: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) as usize % sides
    }
}

/// A slot that a request holds, with its name and its text then.
struct Held {
    /// The slot.
    slot: NonNull<RawPeer>,
    /// Its name.
    name: Vec<u8>,
    /// Its text.
    server: Vec<u8>,
}

impl Held {
    /// Holds a slot.
    fn new(slot: NonNull<RawPeer>) -> Self {
        // SAFETY: one thread runs these tests.
        unsafe {
            (*slot.as_ptr()).conns += 1;
            let (name, server) = ((*slot.as_ptr()).name, (*slot.as_ptr()).server);
            Self { slot, name: bytes(name).to_vec(), server: bytes(server).to_vec() }
        }
    }

    /// Whether it is still what it was.
    fn is_same(&self) -> bool {
        // SAFETY: likewise.
        unsafe {
            bytes((*self.slot.as_ptr()).name) == self.name
                && bytes((*self.slot.as_ptr()).server) == self.server
        }
    }

    /// Lets it go.
    fn done(self) {
        assert!(self.is_same());
        // SAFETY: likewise.
        unsafe { (*self.slot.as_ptr()).conns -= 1 };
    }
}

/// An upstream with so many servers and blanks in each list.
fn zone(servers: [usize; 2], blanks: [usize; 2]) -> Zone {
    let texts: Vec<String> = (0..200).map(|port| format!("127.0.0.1:{port}")).collect();
    let list = |group: usize| -> Vec<_> {
        let ports = (1..=servers[group]).map(|at| group * 100 + at);
        ports.map(|port| (texts[port].as_str(), port as u16, 1)).collect()
    };
    let (us, _) = upstream(&list(0), &list(1));
    // SAFETY: the fixture made lists of peers, in a zone that is never given back; one thread runs these tests.
    unsafe {
        let zone = Zone::of(us).unwrap();
        let lists = zone.write().unwrap();
        for peer in lists.iter().flat_map(|(_, list)| lists.peers(list)) {
            // nginx gives a name a buffer for any.
            let peer = peer.raw().as_ptr();
            let name = ngx_slab_calloc(zone.pool().unwrap().as_ptr(), name_size()).cast::<u8>();
            name.copy_from_nonoverlapping((*peer).name.data, (*peer).name.len);
            (*peer).name.data = name;
        }
        drop(lists);
        let extra = Word::<Extra>::alloc(zone.pool().unwrap()).unwrap();
        let zone = zone.with_extra(extra);
        assert!(Slots::begin(&zone, [0, 1].map(|group| servers[group] + blanks[group])));
        zone
    }
}

/// A server that is to come.
pub(super) fn prepare(zone: &Zone, port: usize) -> Prepared {
    let text = format!("127.0.0.1:{port}");
    let params = Params { weight: 1 + port as u64 % 5, ..Params::default() };
    let address = Address::parse(&text).unwrap();
    let terms = Terms { admin: Admin::Up, params };
    let new = Server { text, address, group: Group::Primary, terms };
    zone.prepare(&new, ROUND_ROBIN).unwrap()
}

/// The slots of each list and of its chain, in no order; each is there once.
pub(super) fn slots(zone: &Zone) -> Vec<BTreeSet<usize>> {
    let lists = zone.read().unwrap();
    let own = Own::of(zone).unwrap();
    let slots_of = |(group, list)| {
        let (linked, blanks, sentinel) = (lists.peers(list), own.blanks(&lists, group), own.sentinel());
        let blanks = blanks.filter(|slot| Some(*slot) != sentinel);
        let all: Vec<_> =
            linked.take(MANY).chain(blanks.take(MANY)).map(|slot| slot.raw().as_ptr() as usize).collect();
        let set: BTreeSet<_> = all.iter().copied().collect();
        assert_eq!(set.len(), all.len(), "a slot is there twice");
        set
    };
    lists.iter().map(slots_of).collect()
}

/// What a module of others sees of a list that walks it by its links, and what one sees that counts to its `number`: the
/// names of the peers. The second ends where it would follow a null pointer.
pub(super) fn walks(list: NonNull<RawPeers>) -> [Vec<String>; 2] {
    // SAFETY: one thread runs these tests.
    unsafe {
        let name = |peer: NonNull<RawPeer>| String::from_utf8(bytes((*peer.as_ptr()).name).to_vec()).unwrap();
        let linked = Peers::starting((*list.as_ptr()).peer).take(MANY).map(|peer| name(peer.raw())).collect();
        let (mut counted, mut peer) = (Vec::new(), (*list.as_ptr()).peer);
        for _ in 0..(*list.as_ptr()).number {
            let Some(present) = NonNull::new(peer) else {
                counted.push("null".to_owned());
                break;
            };
            counted.push(name(present));
            peer = (*present.as_ptr()).next;
        }
        [linked, counted]
    }
}

/// Holds that modules of others see the servers that there are, and no blank slot but the one that stands for no server.
/// Where the lists are `wide`, nginx is told to be ready for more backups than there are.
pub(super) fn check_walks(zone: &Zone, at: &str, is_wide: bool) {
    let names = |group: Group| -> Vec<String> {
        let copy = zone.copy().unwrap();
        let rows = copy.rows.iter().filter(|row| row.slot.group == group);
        rows.map(|row| copy.string(&row.name)).collect()
    };
    let lists = zone.read().unwrap();
    for (group, list) in lists.iter() {
        let (wanted, [linked, counted]) = (names(group), walks(list.raw()));
        if group == Group::Primary && wanted.is_empty() {
            assert_eq!((linked.len(), counted.len()), (1, 1), "{at}");
            continue;
        }
        assert_eq!(linked, wanted, "{at}: {group:?}");
        if group == Group::Primary || !is_wide {
            assert_eq!(counted, wanted, "{at}: {group:?}");
        }
    }
}

/// The ports of the servers of each list, in their order.
fn servers(zone: &Zone) -> [Vec<usize>; 2] {
    let copy = zone.copy().unwrap();
    let mut ports = [Vec::new(), Vec::new()];
    for row in &copy.rows {
        let port = copy.string(&row.name).rsplit(':').next().unwrap().parse().unwrap();
        ports[usize::from(row.slot.group.is_backup())].push(port);
    }
    ports
}

/// The places of the servers of a list, in their order.
pub(super) fn places(zone: &Zone, group: Group) -> Vec<Place> {
    let lists = zone.read().unwrap();
    let of_group = |(of, _, _, place): (Group, &[u8], &[u8], Place)| (of == group).then_some(place);
    lists.each().filter_map(of_group).collect()
}

/// Lets requests hold slots, and lets some go.
fn serve(zone: &Zone, dice: &mut Dice, held: &mut Vec<Held>) {
    let lists = zone.write().unwrap();
    for (_, list) in lists.iter() {
        for slot in lists.servers(list) {
            if dice.roll(5) == 0 && held.len() < 6 {
                held.push(Held::new(slot.raw()));
            }
        }
    }
    drop(lists);
    if !held.is_empty() && dice.roll(2) == 0 {
        held.swap_remove(dice.roll(held.len())).done();
    }
}

/// Random edits, and the servers that there are to be after them.
fn edits(zone: &Zone, dice: &mut Dice, has_backups: bool) -> (Edits, [Vec<usize>; 2]) {
    let mut edits = Edits::default();
    let mut wanted = [Vec::new(), Vec::new()];
    let mut taken: BTreeSet<usize> = servers(zone).concat().into_iter().collect();
    for (list, (group, ports)) in GROUPS.into_iter().zip(servers(zone)).enumerate() {
        for (index, port) in ports.into_iter().enumerate() {
            let spot = Spot { peer: places(zone, group).get(index).copied(), ..Spot::unknown(group) };
            let fate = match dice.roll(8) {
                0 | 1 => {
                    // Its port is free for one that is added.
                    taken.remove(&port);
                    Fate::Leave
                }
                2 => {
                    let new = (1..).map(|port| list * 100 + port).find(|port| !taken.contains(port)).unwrap();
                    taken.insert(new);
                    wanted[list].push(new);
                    Fate::Replace(prepare(zone, new))
                }
                3 => {
                    wanted[list].push(port);
                    let admin = [Admin::Up, Admin::Down, Admin::Drain][dice.roll(3)];
                    let params = Params { weight: 1 + dice.roll(4) as u64, ..Params::default() };
                    Fate::Set(Setting { terms: Terms { admin, params }, revive: false })
                }
                _ => {
                    wanted[list].push(port);
                    continue;
                }
            };
            edits.at.push((spot, fate));
        }
        for _ in 0..if list == 0 || has_backups { dice.roll(4) } else { 0 } {
            let new = list * 100 + 1 + dice.roll(12);
            if taken.insert(new) {
                edits.append.push((group, prepare(zone, new)));
                wanted[list].push(new);
            }
        }
    }
    edits.make_room();
    (edits, wanted)
}

/// One upstream, edited many times. `partly` makes edits, too, some of whose servers found no place.
fn run(seed: u64, partly: bool) {
    let mut dice = Dice(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1);
    let configured = [1 + dice.roll(4), dice.roll(3)];
    let zone = zone(configured, [dice.roll(6), dice.roll(4)]);
    let at_start = slots(&zone);
    let has_backups = at_start.len() == 2;
    let mut held = Vec::new();
    for step in 0..100 {
        let at = format!("seed {seed}, step {step}");
        serve(&zone, &mut dice, &mut held);
        let before = servers(&zone);
        let (mut edits, wanted) = edits(&zone, &mut dice, has_backups);
        let room = edits.seats.capacity();
        let mut lists = zone.write().unwrap();
        // SAFETY: one thread changes the lists, and the places are those of now.
        let seated = unsafe { lists.seat(zone.membership(), &mut edits) };
        assert_eq!(edits.seats.capacity(), room, "{at}: memory was allocated under the locks");
        if seated.is_ok() || partly {
            // SAFETY: the write locks are held, and the edits were seated under them.
            unsafe {
                let touched = Slots::edit(&mut lists, ROUND_ROBIN, &mut edits);
                if touched.members {
                    Slots::settle(&lists);
                }
            }
        }
        drop(lists);
        drop(edits);
        match seated {
            Ok(()) => assert_eq!(servers(&zone), wanted, "{at}"),
            Err(_) if !partly => assert_eq!(servers(&zone), before, "{at}"),
            Err(_) => {}
        }
        assert_eq!(slots(&zone), at_start, "{at}");
        check_walks(&zone, &at, false);
        let copy = zone.copy().unwrap();
        assert_eq!(copy.faults, Faults::default(), "{at}");
        assert!(exact(&copy.primary) && copy.backup.as_ref().is_none_or(exact), "{at}");
        assert!(held.iter().all(Held::is_same), "{at}");
    }
}

#[test]
fn edits_are_made_wholly_or_not_at_all() {
    (1..200).for_each(|seed| run(seed, false));
}

#[test]
fn edits_that_are_made_in_part_leave_the_lists_whole() {
    (1..200).for_each(|seed| run(seed, true));
}

#[test]
fn a_full_zone_is_left_with_the_slots_of_its_servers() {
    let (us, shm) = upstream(&[("127.0.0.1:1", 1, 1), ("127.0.0.1:2", 2, 1)], &[]);
    // SAFETY: the fixture made lists of peers, and nobody else knows their zone.
    let zone = unsafe {
        let zone = Zone::of(us).unwrap();
        let zone = zone.with_extra(Word::<Extra>::alloc(zone.pool().unwrap()).unwrap());
        fixture::exhaust(shm);
        assert!(!Slots::begin(&zone, [20, 5]));
        zone
    };
    assert_eq!(slots(&zone).iter().map(BTreeSet::len).collect::<Vec<_>>(), [2]);
    assert_eq!(zone.copy().unwrap().faults, Faults::default());
    check_walks(&zone, "full", false);

    let at = places(&zone, Group::Primary).into_iter();
    let leave = |place| (Spot { peer: Some(place), ..Spot::unknown(Group::Primary) }, Fate::Leave);
    let mut edits = Edits { at: at.map(leave).collect(), ..Edits::default() };
    edits.make_room();
    let lists = zone.write().unwrap();
    // SAFETY: one thread changes the lists, and the places are those of now.
    assert_eq!(unsafe { lists.seat(zone.membership(), &mut edits) }, Ok(()));
    // SAFETY: the edits were seated under these locks, and nobody changed the lists.
    unsafe { lists.apply(ROUND_ROBIN, 0, &mut edits) }.unwrap();
    assert_eq!(zone.copy().unwrap().faults, Faults::default());
    check_walks(&zone, "without servers", false);
}
