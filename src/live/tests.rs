//! Store and peers together, against nginx's real lists and slab.

use std::cell::{OnceCell, RefCell};
use std::sync::atomic::Ordering;

use crate::model::address::Address;
use crate::model::id::{Group, ServerId, Slot, UpstreamIndex};
use crate::model::server::{self, Change, Terms};
use crate::model::snapshot::{Method, Peer};
use crate::model::state::Admin;
use crate::nginx::fixture;
use crate::nginx::shm::Word;
use crate::nginx::upstream as nginx;
use crate::ops::execute::plan;
use crate::ops::{Action, Command, CommitError, Lookup, Selector};
use crate::store::Store;
use crate::store::adopt::{Claim, Claimed, Wishes};
use crate::zone::backend::Backend;
use crate::zone::setting::Abilities;
use crate::zone::tests::{Server, exact, upstream};
use crate::zone::{self, Edits, Extra, Fate, Spot, Zone};

use super::change;
use super::lookup::{know_peers, look_up, only};
use super::upstream::{Control, Upstream};
use super::view::{View, claim};

/// Round robin in a core without sticky.
const ROUND_ROBIN: Abilities = Abilities { method: Method::RoundRobin, drains: false };

/// An upstream that was started with these primaries.
fn start(servers: &[Server<'_>]) -> Upstream {
    let zone = fixture::shm_zone(64);
    // SAFETY: the fixture made the slab pool, which is never given back.
    reload(unsafe { Store::open(zone) }.unwrap(), servers)
}

/// The same with a store that other configurations had before.
fn reload(store: Store, servers: &[Server<'_>]) -> Upstream {
    let (us, _) = upstream(servers, &[]);
    // SAFETY: the fixture made the lists and the slab pool, which are never given back.
    let (zone, extra) = unsafe {
        let zone = Zone::of(us).unwrap();
        let extra = Word::<Extra>::alloc(zone.pool().unwrap()).unwrap();
        (zone.with_extra(extra), extra)
    };
    let copy = zone.copy().unwrap();
    let claims: Vec<Claim<'_>> = copy.rows.iter().map(|row| claim(&copy, row)).collect();
    let mut claimed = Claimed::with_room(claims.len());
    let mut locked = store.lock();
    let generation = locked.begin_generation();
    let record = locked.upstream(b"u").unwrap();
    locked.claim(record, generation, copy.membership, &claims, &mut claimed, Wishes::Dropped).unwrap();
    // SAFETY: the words are the test's own.
    unsafe {
        extra.as_ref().applied.store(locked.revision(record), Ordering::Relaxed);
        extra.as_ref().seen.set(locked.departures(record));
    }
    drop(locked);
    let upstream = Upstream {
        is_pool: false.into(),
        slots: Default::default(),
        conf: nginx::Upstream::of(us),
        name: "u".into(),
        zone: Some("u".into()),
        method: Some(Method::RoundRobin),
        guard: None,
        fixed: RefCell::new(None),
        control: OnceCell::new(),
    };
    let (abilities, has_backups) = (ROUND_ROBIN, false);
    let (is_old, followed) = (false.into(), 0.into());
    let control =
        Control { store, generation, record, zone, abilities, has_backups, extra, is_old, followed };
    assert!(upstream.control.set(control).is_ok());
    upstream
}

/// Carries out a command; false if it has to be planned again.
fn act(upstream: &Upstream, servers: Vec<Selector>, action: Action) -> bool {
    let control = upstream.control().unwrap();
    let lookup = look_up(upstream, control).unwrap();
    commit(upstream, lookup.as_ref(), servers, action)
}

/// The same with look-ups from before.
fn commit(upstream: &Upstream, lookup: &dyn Lookup, servers: Vec<Selector>, action: Action) -> bool {
    let client = "127.0.0.1".into();
    let command = Command { upstream: UpstreamIndex(0), servers, action, force: true, client, note: None };
    let plan = plan(lookup, &command).unwrap();
    match change::commit(upstream, upstream.control().unwrap(), &plan) {
        Ok(_) => true,
        Err(CommitError::Moved) => false,
        Err(refused) => panic!("{refused:?}"),
    }
}

/// A new primary.
fn addition(text: &str) -> Action {
    let address = Address::parse(text).unwrap();
    Action::Add(server::Server { text: text.into(), address, group: Group::Primary, terms: Terms::default() })
}

/// A change of state.
fn admin(admin: Admin) -> Action {
    Action::Set(Change { admin: Some(admin), params: Vec::new() })
}

/// What is shown of a peer here.
fn shown(peer: &Peer) -> (u64, String, Admin, u64) {
    (peer.id.unwrap().0, peer.name.to_string(), peer.terms.admin, peer.down)
}

/// Sees that single look-ups say what the copy of the whole says.
fn compare(upstream: &Upstream) -> Vec<(u64, String, Admin, u64)> {
    let control = upstream.control().unwrap();
    let view = View::take(upstream, control).unwrap();
    let lookup = look_up(upstream, control).unwrap();
    assert_eq!(lookup.revision(), view.revision());
    assert_eq!(lookup.membership(), view.membership());
    assert_eq!(lookup.usable(), view.usable());
    assert_eq!(lookup.total_weight(), view.total_weight());
    let snapshot = View::snapshot(upstream).unwrap();
    assert!(exact(&snapshot.primary));
    for (position, peer) in snapshot.peers.iter().enumerate() {
        let id = peer.id.unwrap();
        for selector in
            [Selector::Id(id), Selector::Position(position), Selector::Server(peer.name.to_string())]
        {
            let found: Vec<_> = lookup.select(&selector).unwrap().iter().map(shown).collect();
            assert_eq!(found, [shown(peer)], "{selector:?}");
        }
    }
    let ids: Vec<_> = snapshot.peers.iter().rev().filter_map(|peer| peer.id).collect();
    let all: Vec<_> = only(upstream, control, &ids).unwrap().peers.iter().map(shown).collect();
    let peers: Vec<_> = snapshot.peers.iter().map(shown).collect();
    assert_eq!(all, peers, "in nginx's order");
    peers
}

/// The addresses.
fn names(upstream: &Upstream) -> Vec<String> {
    compare(upstream).into_iter().map(|(_, name, ..)| name).collect()
}

/// Changes the lists as nginx does when it resolves a name: the store knows nothing of it.
fn resolve(control: &Control, leaves: Option<usize>, comes: Option<&str>) {
    let zone = &control.zone;
    let copy = zone.copy().unwrap();
    let spot = |index: usize| Spot { peer: Some(copy.rows[index].place), ..Spot::unknown(Group::Primary) };
    let mut edits = Edits::default();
    edits.at.extend(leaves.map(|index| (spot(index), Fate::Leave)));
    if let Some(text) = comes {
        let address = Address::parse(text).unwrap();
        let (text, group) = (text.into(), Group::Primary);
        let new = server::Server { text, address, group, terms: Terms::default() };
        edits.append.push((Group::Primary, zone.prepare(&new, ROUND_ROBIN).unwrap()));
    }
    // SAFETY: one thread changes the lists, and the places are those of now.
    unsafe { zone.write().unwrap().apply(ROUND_ROBIN, copy.membership, &mut edits) }.unwrap();
}

#[test]
fn single_changes_leave_what_whole_ones_would() {
    if !zone::Current::REFUSES_OLD {
        // The fixture's lists have no slots.
        return;
    }
    let upstream = start(&[("127.0.0.1:1", 1, 1), ("127.0.0.1:2", 2, 2), ("127.0.0.1:3", 3, 3)]);
    assert_eq!(names(&upstream), ["127.0.0.1:1", "127.0.0.1:2", "127.0.0.1:3"]);
    assert!(act(&upstream, vec![], addition("127.0.0.1:4")));
    assert!(act(&upstream, vec![Selector::Position(1)], Action::Remove));
    assert!(act(&upstream, vec![Selector::Server("127.0.0.1:4".into())], admin(Admin::Down)));
    let readdress = Action::Readdress { address: "127.0.0.9:9".into(), change: Change::default() };
    assert!(act(&upstream, vec![Selector::Id(ServerId(0))], readdress));
    let (up, down) = (Admin::Up, Admin::Down);
    assert_eq!(
        compare(&upstream),
        [
            (0, "127.0.0.9:9".into(), up, 0),
            (2, "127.0.0.1:3".into(), up, 0),
            (3, "127.0.0.1:4".into(), down, 1),
        ]
    );
}

#[test]
fn hundreds_come_go_and_move_as_they_are_told() {
    if !zone::Current::REFUSES_OLD {
        // The fixture's lists have no slots.
        return;
    }
    let upstream = start(&[("127.0.0.1:1", 1, 1)]);
    let mut wanted = vec!["127.0.0.1:1".to_owned()];
    for round in 0..160_usize {
        let name = format!("127.0.1.1:{}", round + 1);
        assert!(act(&upstream, vec![], addition(&name)));
        wanted.push(name);
        if round % 3 == 0 {
            let gone = wanted.remove(round * 7 % wanted.len());
            assert!(act(&upstream, vec![Selector::Server(gone)], Action::Remove));
        }
        if round % 5 == 0 {
            let at = round * 3 % wanted.len();
            let new = format!("127.0.2.1:{}", round + 1);
            let readdress = Action::Readdress { address: new.clone(), change: Change::default() };
            assert!(act(&upstream, vec![Selector::Server(wanted[at].clone())], readdress));
            wanted[at] = new;
        }
        // The zone of the test is small.
        if wanted.len() > 40 {
            let gone = wanted.remove(0);
            assert!(act(&upstream, vec![Selector::Position(0)], Action::Remove));
            assert!(!wanted.contains(&gone));
        }
        if round % 10 == 0 {
            assert_eq!(names(&upstream), wanted, "{round}");
        }
    }
    assert_eq!(names(&upstream), wanted);
}

#[test]
fn lists_that_nginx_changed_are_looked_at_anew() {
    let upstream = start(&[("127.0.0.1:1", 1, 1), ("127.0.0.1:2", 2, 1), ("127.0.0.1:3", 3, 1)]);
    let control = upstream.control().unwrap();
    compare(&upstream);
    // One goes behind the store's back: what the store knows of peers is old.
    let before = look_up(&upstream, control).unwrap();
    resolve(control, Some(1), None);
    assert!(!commit(&upstream, before.as_ref(), vec![Selector::Id(ServerId(0))], admin(Admin::Down)));
    assert!(act(&upstream, vec![Selector::Id(ServerId(2))], admin(Admin::Down)));
    let copy = control.zone.copy().unwrap();
    assert_eq!(copy.rows.iter().map(|row| row.down).collect::<Vec<_>>(), [0, 1]);
    // The record without a peer is not found by any name.
    let lookup = look_up(&upstream, control).unwrap();
    assert!(lookup.select(&Selector::Id(ServerId(1))).unwrap().is_empty());
    assert!(lookup.select(&Selector::Server("127.0.0.1:2".into())).unwrap().is_empty());
    drop(lookup);
    assert!(act(&upstream, vec![Selector::Id(ServerId(0))], Action::Remove));
    assert_eq!(control.zone.copy().unwrap().rows.len(), 1);
}

#[test]
fn peers_are_found_anew_as_soon_as_the_count_of_changes_is_another() {
    if !zone::Current::REFUSES_OLD {
        // The fixture's lists have no slots.
        return;
    }
    let upstream = start(&[("127.0.0.1:1", 1, 1), ("127.0.0.1:2", 2, 1)]);
    let control = upstream.control().unwrap();
    compare(&upstream);
    resolve(control, Some(0), None);
    resolve(control, None, Some("127.0.0.1:1"));
    let places = control.zone.copy().unwrap().rows;
    let mut locked = control.store.lock();
    let lists = control.zone.read().unwrap();
    assert!(know_peers(control, &mut locked, &lists));
    for (id, index) in [(0, 1), (1, 0)] {
        let server = locked.server(control.record, id).unwrap();
        assert_eq!(locked.peer(server), places[index].place.as_ptr());
    }
}

#[test]
fn a_worker_of_an_older_configuration_sets_its_own_peers() {
    let upstream = start(&[("127.0.0.1:1", 1, 1), ("127.0.0.1:2", 2, 1)]);
    let control = upstream.control().unwrap();
    compare(&upstream);
    // Another configuration adopts the store; its peers are elsewhere.
    let mut locked = control.store.lock();
    locked.begin_generation();
    let elsewhere = std::ptr::without_provenance_mut::<std::ffi::c_void>(8);
    let rows = [("127.0.0.1:1", elsewhere), ("127.0.0.1:2", elsewhere)];
    let rows = rows.map(|(name, peer)| (Group::Primary, name.as_bytes(), name.as_bytes(), peer));
    locked.note_peers(control.record, control.zone.membership(), rows.into_iter());
    drop(locked);
    assert!(act(&upstream, vec![Selector::Id(ServerId(1))], admin(Admin::Down)));
    let copy = control.zone.copy().unwrap();
    assert_eq!(copy.rows.iter().map(|row| row.down).collect::<Vec<_>>(), [0, 1]);
    let peer = &only(&upstream, control, &[ServerId(1)]).unwrap().peers[0];
    assert_eq!((shown(peer).2, peer.slot), (Admin::Down, Slot { group: Group::Primary, index: 1 }));
}

/// The addresses, and nginx's word for their states, in a process of any configuration that is about to choose one.
fn chosen_from(upstream: &Upstream) -> Vec<(String, u64)> {
    let control = upstream.control().unwrap();
    control.keep_up();
    let copy = control.zone.copy().unwrap();
    assert!(exact(&copy.primary));
    copy.rows.iter().map(|row| (copy.string(&row.name), row.down)).collect()
}

#[test]
fn a_worker_of_an_older_configuration_goes_with_what_changes() {
    if !zone::Current::REFUSES_OLD {
        // The fixture's lists have no slots.
        return;
    }
    let up = |ports: &[u16]| ports.iter().map(|port| (format!("127.0.0.1:{port}"), 0)).collect::<Vec<_>>();
    let server = |port: u16| vec![Selector::Server(format!("127.0.0.1:{port}"))];
    let old = start(&[("127.0.0.1:1", 1, 1), ("127.0.0.1:2", 2, 1), ("b", 3, 1)]);
    let store = old.control().unwrap().store;
    let new = reload(store, &[("127.0.0.1:2", 2, 1), ("127.0.0.1:3", 3, 1), ("127.0.0.1:4", 4, 1)]);
    assert_eq!(chosen_from(&old), up(&[1, 2, 3]), "its servers are its own");
    assert!(act(&new, server(2), admin(Admin::Down)));
    assert_eq!(chosen_from(&old)[1].1, 1);
    assert!(act(&new, server(3), admin(Admin::Down)));
    assert_eq!(chosen_from(&old)[2].1, 1, "whatever its text is");
    assert!(act(&new, server(2), Action::Remove));
    assert!(act(&new, server(4), Action::Remove));
    assert!(act(&new, vec![], addition("127.0.0.1:5")));
    assert!(act(&new, server(3), admin(Admin::Up)));
    assert_eq!(chosen_from(&old), up(&[1, 3, 5]), "what left, and what came");
    // More than the store remembers.
    for port in 100..120 {
        assert!(act(&new, vec![], addition(&format!("127.0.0.1:{port}"))));
        assert!(act(&new, server(port), Action::Remove));
    }
    assert_eq!(chosen_from(&old), up(&[3, 5]), "nothing but what the new configuration has");
    let newest = reload(store, &[("127.0.0.1:3", 3, 1)]);
    assert!(act(&newest, vec![], addition("127.0.0.1:6")));
    assert!(act(&newest, server(3), Action::Remove));
    assert_eq!(chosen_from(&new), up(&[5, 6]));
    assert_eq!(chosen_from(&old), up(&[5, 6]), "what changed two reloads later");
}

#[test]
fn what_an_older_configuration_takes_up_by_itself_is_told_what_is_wanted() {
    let old = start(&[("127.0.0.1:1", 1, 1), ("127.0.0.1:2", 2, 1)]);
    let control = old.control().unwrap();
    let new = reload(control.store, &[("127.0.0.1:1", 1, 1), ("127.0.0.1:2", 2, 1)]);
    assert!(act(&new, vec![Selector::Server("127.0.0.1:2".into())], admin(Admin::Down)));
    assert_eq!(chosen_from(&old)[1].1, 1);
    if !zone::Current::REFUSES_OLD {
        // nginx takes up nothing there.
        return;
    }
    resolve(control, Some(1), None);
    resolve(control, None, Some("127.0.0.1:2"));
    assert!(control.is_behind(control.zone.membership()));
    assert_eq!(chosen_from(&old)[1].1, 1);
    assert!(!control.is_behind(control.zone.membership()));
}
