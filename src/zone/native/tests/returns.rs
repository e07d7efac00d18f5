//! Servers that leave and return while requests are under way.

use crate::model::id::{Group, Slot};
use crate::nginx::fixture;

use super::super::super::nginx_peers::RawPeer;
use super::super::super::place::Place;
use super::super::super::tests::{exact, spot};
use super::super::super::{Edits, Fate, Zone};
use super::{ROUND_ROBIN, add, names, peer, places, prepare, remove, zone};

/// Applies edits as a change does: servers that return have their own peers back.
fn change(zone: &Zone, mut edits: Edits) {
    edits.make_room();
    let lists = zone.write().unwrap();
    // SAFETY: one thread changes the lists, and the places are those of now.
    assert_eq!(unsafe { lists.seat(zone.membership(), &mut edits) }, Ok(()));
    // SAFETY: likewise.
    assert!(unsafe { lists.apply(ROUND_ROBIN, zone.membership(), &mut edits) }.is_some());
}

/// A request is given a peer.
fn begin(peer: *mut RawPeer) {
    // SAFETY: the peer is linked; one thread reads and writes it.
    unsafe {
        (*peer).conns += 1;
        (*peer).refs += 1;
    }
}

/// A request gives a peer back. What nginx would free then is kept by the module's reference.
fn end(peer: *mut RawPeer) {
    // SAFETY: the request holds the peer; likewise.
    unsafe {
        (*peer).conns -= 1;
        (*peer).refs -= 1;
        assert!((*peer).zombie() == 0 || (*peer).refs > 0);
    }
}

#[test]
fn a_server_that_returns_has_the_peer_that_its_requests_use() {
    let (zone, shm) = zone(&[("a", 1, 1), ("127.0.0.1:2", 2, 5)], &[]);
    let (before, own) = (fixture::used(shm), peer(&zone, 1));
    begin(own);
    begin(own);
    // SAFETY: the chunk is the zone's, as nginx's own sessions are.
    unsafe {
        (*own).fails = 3;
        (*own).ssl_session = nginx_sys::ngx_slab_alloc(fixture::pool(shm), 64);
    }
    remove(&zone, 1);
    change(
        &zone,
        Edits { append: vec![(Group::Primary, prepare(&zone, "127.0.0.1:2").unwrap())], ..Edits::default() },
    );
    assert_eq!(peer(&zone, 1), own);
    // SAFETY: the peer is linked.
    unsafe {
        let peer = &*own;
        assert_eq!((peer.zombie(), peer.refs, peer.conns), (0, 2, 2));
        assert_eq!((peer.weight, peer.fails), (2, 0), "as it was added");
        assert!(peer.ssl_session.is_null(), "what answers there may be another server");
    }
    assert!(exact(&zone.copy().unwrap().primary));
    assert!(!zone.has_remains());
    assert_eq!(fixture::used(shm), before);
    end(own);
    end(own);
}

#[test]
fn a_server_of_the_other_list_or_with_an_idle_peer_is_a_new_one() {
    let (zone, _) = zone(&[("a", 1, 1), ("b", 2, 1), ("c", 3, 1)], &[("d", 4, 1)]);
    let (used, idle) = (peer(&zone, 1), peer(&zone, 2));
    begin(used);
    remove(&zone, 2);
    remove(&zone, 1);
    let append = [(Group::Backup, "127.0.0.1:2"), (Group::Primary, "127.0.0.1:3")];
    let append = append.map(|(group, text)| (group, prepare(&zone, text).unwrap())).into();
    change(&zone, Edits { append, ..Edits::default() });
    let copy = zone.copy().unwrap();
    assert_eq!(names(&zone), ["127.0.0.1:1", "127.0.0.1:3", "127.0.0.1:4", "127.0.0.1:2"]);
    assert_eq!((copy.zombies.peers, copy.zombies.conns), (2, 1));
    assert!(places(&zone).iter().all(|Place(peer)| ![used, idle].contains(&peer.as_ptr())));
    end(used);
    zone.reap();
    assert!(!zone.has_remains());
}

#[test]
fn a_peer_that_no_server_comes_into_after_all_is_kept_on() {
    let (zone, _) = zone(&[("a", 1, 1), ("b", 2, 1), ("c", 3, 1)], &[]);
    let (used, gone) = (peer(&zone, 1), spot(&zone, Slot { group: Group::Primary, index: 2 }));
    begin(used);
    remove(&zone, 2);
    remove(&zone, 1);
    // In the place of a peer that is not linked any more.
    let at = vec![(gone, Fate::Replace(prepare(&zone, "127.0.0.1:2").unwrap()))];
    change(&zone, Edits { at, ..Edits::default() });
    assert_eq!(names(&zone), ["127.0.0.1:1"]);
    assert_eq!(zone.copy().unwrap().zombies.peers, 2);
    end(used);
    zone.reap();
    assert!(!zone.has_remains());
}

#[test]
fn requests_are_counted_where_their_server_is() {
    let mut state = 0x2545_f491_u64;
    let mut below = |limit: usize| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        ((state >> 33) as usize) % limit
    };
    let address = |port: usize| format!("127.0.0.1:{port}");
    let (zone, shm) = zone(&[("127.0.0.1:1", 1, 1), ("127.0.0.1:2", 2, 1)], &[]);
    // Two servers, all of whose memory is such as servers have that were added.
    let renew = || {
        names(&zone).iter().for_each(|_| remove(&zone, 0));
        (1..=2).for_each(|port| add(&zone, Group::Primary, &address(port)));
        zone.reap();
    };
    renew();
    let before = fixture::used(shm);
    let mut requests: Vec<(String, *mut RawPeer)> = Vec::new();
    for round in 0..4000 {
        let there = names(&zone);
        let absent: Vec<_> = (1..=6).map(address).filter(|name| !there.contains(name)).collect();
        match below(6) {
            0 | 1 if !there.is_empty() && requests.len() < 40 => {
                let at = below(there.len());
                begin(peer(&zone, at));
                requests.push((there[at].clone(), peer(&zone, at)));
            }
            0..=2 if !requests.is_empty() => end(requests.swap_remove(below(requests.len())).1),
            3 if !there.is_empty() => remove(&zone, below(there.len())),
            4 => {
                // Several at once, one of them in the place of another.
                let mut new = absent.iter().map(|name| prepare(&zone, name).unwrap());
                let at = if there.is_empty() { None } else { Some(below(there.len())) };
                let at = at.zip(new.next()).map(|(index, new)| {
                    (spot(&zone, Slot { group: Group::Primary, index }), Fate::Replace(new))
                });
                let append = new.take(below(3)).map(|new| (Group::Primary, new)).collect();
                change(&zone, Edits { at: at.into_iter().collect(), append, ..Edits::default() });
            }
            _ => zone.reap(),
        }
        let copy = zone.copy().unwrap();
        assert!(exact(&copy.primary), "{round}");
        for row in &copy.rows {
            let name = copy.string(&row.name);
            let own = requests.iter().filter(|(of, _)| *of == name).count();
            assert_eq!(row.conns, own as u64, "{round}: {name}");
        }
        let linked: u64 = copy.rows.iter().map(|row| row.conns).sum();
        assert_eq!(linked + copy.zombies.conns, requests.len() as u64, "{round}");
    }
    requests.drain(..).for_each(|(_, peer)| end(peer));
    renew();
    assert!(!zone.has_remains());
    assert_eq!(fixture::used(shm), before);
}
