//! Memory of the zone that runs out, and what another zone takes over, against nginx's real slab.

use std::ptr::NonNull;

use crate::model::id::Group;
use crate::model::params::Params;
use crate::model::server::Terms;
use crate::model::state::Admin;
use crate::nginx::fixture;

use super::adopt::{Claim, Claimed, Wishes};
use super::commit::Change;
use super::records::Reason;
use super::tests::{add, adopt, claim, commit, down, ids, reload, store, wanted};
use super::{Locked, Store, Upstream};

/// Commits a state of a server with a note, and its weight.
fn set(
    locked: &mut Locked,
    record: NonNull<Upstream>,
    id: u64,
    (admin, weight): (Admin, u64),
    note: &str,
) -> Result<u64, super::memory::Full> {
    let params = Params { weight, ..Params::default() };
    let reason = (!note.is_empty()).then(|| Reason::new(1, &"127.0.0.1".into(), Some(note)));
    commit(
        locked,
        record,
        &mut [Change::new(locked.server(record, id).unwrap(), Terms { admin, params }, reason)],
        &[],
        &mut [],
    )
}

#[test]
fn what_was_taken_down_comes_up_in_a_full_zone() {
    let (store, zone) = store();
    let mut locked = store.lock();
    let (record, _) = adopt(&mut locked, &[claim("a", "1"), claim("b", "2")]);
    set(&mut locked, record, 0, (Admin::Down, 1), "first").unwrap();
    drop(locked);
    fixture::exhaust(zone);
    let mut locked = store.lock();
    assert!(set(&mut locked, record, 1, (Admin::Down, 1), "no room").is_err());
    let used = fixture::used(zone);
    // No order of changes needs more than the first took.
    let long = "a note of quite another length";
    let steps = [
        (Admin::Up, 1, "second"),
        (Admin::Down, 1, long),
        (Admin::Down, 5, ""),
        (Admin::Down, 1, ""),
        (Admin::Drain, 2, "fourth"),
        (Admin::Up, 2, "fifth"),
        (Admin::Up, 1, ""),
        (Admin::Down, 1, "sixth"),
        (Admin::Down, 1, "short"),
        (Admin::Up, 1, "last"),
    ];
    let mut said = "first";
    for (admin, weight, note) in steps {
        set(&mut locked, record, 0, (admin, weight), note).unwrap();
        if !note.is_empty() {
            said = note;
        }
        assert_eq!(wanted(&locked, record, "a", "1"), (admin, Some(said.into())));
        assert_eq!(fixture::used(zone), used);
    }
    let gone = locked.server(record, 0).unwrap();
    commit(&mut locked, record, &mut [], &[gone], &mut []).unwrap();
    assert_eq!(set(&mut locked, record, 1, (Admin::Down, 1), "room"), Ok(13), "what left makes room");
}

#[test]
fn a_full_zone_keeps_nothing_from_service_and_nothing_from_what_the_file_says() {
    let (store, zone) = store();
    let mut locked = store.lock();
    let down_by_file = Claim { terms: Terms { admin: Admin::Down, ..Terms::default() }, ..claim("a", "1") };
    let (record, _) = adopt(&mut locked, &[down_by_file, claim("b", "2")]);
    drop(locked);
    fixture::exhaust(zone);
    let mut locked = store.lock();
    set(&mut locked, record, 0, (Admin::Up, 1), "there is no room for this").unwrap();
    assert_eq!(wanted(&locked, record, "a", "1"), (Admin::Up, None));
    set(&mut locked, record, 0, (Admin::Down, 1), "nor for this").unwrap();
    assert_eq!(wanted(&locked, record, "a", "1"), (Admin::Down, None));
    assert!(set(&mut locked, record, 0, (Admin::Drain, 1), "refused").is_err());
    assert_eq!(wanted(&locked, record, "a", "1"), (Admin::Down, None));
    set(&mut locked, record, 1, (Admin::Up, 7), "").unwrap();
    set(&mut locked, record, 1, (Admin::Up, 1), "").unwrap();
}

#[test]
fn a_configuration_finds_room_in_a_zone_that_was_filled_at_run_time() {
    let (store, zone) = store();
    let mut locked = store.lock();
    let (record, _) = adopt(&mut locked, &[claim("a", "1")]);
    let names: Vec<String> = (0..).map(|name| name.to_string()).take(1_000).collect();
    let added = names.iter().take_while(|name| add(&mut locked, record, claim(name, name)).is_ok()).count();
    drop(locked);
    fixture::exhaust(zone);
    let mut locked = store.lock();
    locked.begin_generation();
    // An upstream that is adopted before the one that filled the zone.
    let other = locked.upstream(b"other").unwrap();
    let claims: Vec<_> = names.iter().take(added / 2).map(|name| claim("o", name)).collect();
    let mut claimed = Claimed::with_room(claims.len());
    locked.claim(other, 1, 0, &claims, &mut claimed, Wishes::Dropped).unwrap();
    let (_, claimed) = reload(&mut locked, &[claim("a", "1")]);
    assert_eq!(claimed.losses().count(), added, "what is dropped is counted");
}

#[test]
fn a_store_of_another_size_goes_on_with_ids_and_revisions() {
    let (old, _) = store();
    let names: Vec<String> = (0..40).map(|name| name.to_string()).collect();
    let backup = Claim { group: Group::Backup, ..claim("z", "9") };
    let claims: Vec<_> = names.iter().map(|name| claim("a", name)).chain([backup]).collect();
    let mut before = old.lock();
    let other = before.upstream(b"other").unwrap();
    let mut claimed = Claimed::with_room(1);
    before.claim(other, 1, 0, &[claim("x", "1")], &mut claimed, Wishes::Dropped).unwrap();
    let (record, _) = adopt(&mut before, &claims);
    set(&mut before, record, 3, (Admin::Down, 1), "is dropped").unwrap();
    add(&mut before, record, claim("new", "new")).unwrap();
    before.begin_generation();

    let (new, _) = store();
    let mut after = new.lock();
    after.inherit(&mut before).unwrap();
    assert_eq!(after.generation(), before.generation());
    let copy = after.upstream(b"u").unwrap();
    assert_ne!(copy, record);
    assert_eq!(ids(&after, copy), ids(&before, record));
    assert_eq!(after.revision(copy), 2);
    assert_eq!(wanted(&after, copy, "a", "3"), (Admin::Down, None));
    let other = after.upstream(b"other").unwrap();
    assert_eq!((after.revision(other), ids(&after, other)), (0, vec![0]));
    drop(before);

    // What the reload drops is counted as it would have been in the store before.
    let (record, claimed) = reload(&mut after, &claims[1..]);
    assert_eq!((record, claimed.losses().count()), (copy, 2));
    assert_eq!(after.revision(copy), 3);
    assert_eq!(ids(&after, copy), (1..=40).collect::<Vec<_>>());
    assert_eq!(add(&mut after, record, claim("next", "next")), Ok(42), "no id is used again");
}

#[test]
fn a_store_that_is_too_small_for_what_there_was_is_whole() {
    let (old, _) = store();
    let mut before = old.lock();
    let names: Vec<String> = (0..60).map(|name| format!("{name:0200}")).collect();
    let claims: Vec<_> = names.iter().map(|name| claim("a", name)).collect();
    adopt(&mut before, &claims);
    let zone = fixture::shm_zone(8);
    // SAFETY: the fixture made a slab pool at the start of the zone.
    let new = unsafe { Store::open(zone) }.unwrap();
    let mut after = new.lock();
    assert!(after.inherit(&mut before).is_err());
    let (record, _) = adopt(&mut after, &claims[..10]);
    assert_eq!(ids(&after, record), (0..10).collect::<Vec<_>>());
}

#[test]
fn the_room_for_reasons_is_that_which_there_is() {
    let (store, zone) = store();
    let mut locked = store.lock();
    let names: Vec<String> = (0..50).map(|name| name.to_string()).collect();
    let claims: Vec<_> = names.iter().map(|name| claim("a", name)).collect();
    let (record, _) = adopt(&mut locked, &claims);
    let (servers, room) = locked.room_for_reasons();
    assert!(servers == 50 && room > 50, "{servers}, {room}");
    while fixture::free_pages(zone) > 2 {
        assert!(!locked.alloc_bytes(4096).is_null());
    }
    set(&mut locked, record, 0, (Admin::Down, 1), "one").unwrap();
    let (servers, room) = locked.room_for_reasons();
    assert_eq!(servers, 49);
    let fits =
        (1..50).take_while(|id| set(&mut locked, record, *id, (Admin::Down, 1), "more").is_ok()).count();
    assert_eq!(fits, room);
    assert_eq!(locked.room_for_reasons(), (49 - fits, 0));
}

#[test]
fn memory_that_runs_out_changes_nothing() {
    let (store, zone) = store();
    let mut locked = store.lock();
    let (record, _) = adopt(&mut locked, &[claim("a", "1"), claim("b", "2")]);
    drop(locked);
    fixture::exhaust(zone);
    let mut locked = store.lock();
    assert!(down(&mut locked, record, 0).is_err());
    assert_eq!((locked.revision(record), wanted(&locked, record, "a", "1").0), (0, Admin::Up));

    let claims = [claim("a", "1"), claim("b", "2"), claim("c", "3")];
    let mut claimed = Claimed::with_room(claims.len());
    assert!(locked.claim(record, 2, 0, &claims, &mut claimed, Wishes::Dropped).is_err());
    assert_eq!(ids(&locked, record), [0, 1]);
    assert!(locked.upstream(b"another").is_err());
}

#[test]
fn memory_fails_at_each_point_and_none_is_lost() {
    // The zones differ in which allocation is the one that fails.
    for pages in 8..24 {
        let zone = fixture::shm_zone(pages);
        // SAFETY: the fixture made a slab pool at the start of the zone.
        let Some(store) = (unsafe { Store::open(zone) }) else {
            continue;
        };
        let mut locked = store.lock();
        let (record, _) = adopt(&mut locked, &[claim("a", "1")]);
        let before = fixture::free_pages(zone);
        let names: Vec<String> = (0..400).map(|name| format!("{name:0200}")).collect();
        let claims: Vec<_> = names.iter().map(|name| claim(name, name)).collect();
        let mut claimed = Claimed::with_room(claims.len());
        assert!(locked.claim(record, 2, 0, &claims, &mut claimed, Wishes::Dropped).is_err(), "{pages} pages");
        assert_eq!(ids(&locked, record), [0]);
        assert_eq!(fixture::free_pages(zone), before, "{pages} pages");
    }
}
