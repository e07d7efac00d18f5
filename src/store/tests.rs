//! Against nginx's real slab.

mod lost;

use std::ptr;

use crate::model::id::Group;
use crate::model::server::Terms;
use crate::model::state::Admin;
use crate::nginx::fixture;

use super::adopt::{Claim, Claimed, Wishes};
use super::commit::{Arrival, Change};
use super::records::Reason;
use super::{AT_ONCE, Holder, Locked, PATIENCE, Store, Upstream};

use std::ptr::NonNull;

impl Store {
    /// Takes the lock, which nobody else has.
    pub fn lock(&self) -> Locked {
        self.lock_within(PATIENCE).unwrap()
    }
}

/// A store in a zone of 32 pages, and the zone.
pub(super) fn store() -> (Store, NonNull<nginx_sys::ngx_shm_zone_t>) {
    let zone = fixture::shm_zone(32);
    // SAFETY: the fixture made a slab pool at the start of the zone.
    (unsafe { Store::open(zone) }.unwrap(), zone)
}

/// A primary of a test.
pub(super) fn claim<'a>(server: &'a str, name: &'a str) -> Claim<'a> {
    Claim {
        group: Group::Primary,
        server: server.as_bytes(),
        name: name.as_bytes(),
        terms: Terms::default(),
        managed: false,
    }
}

/// Makes changes, or says that there is no room.
pub(super) fn commit(
    locked: &mut Locked,
    record: NonNull<Upstream>,
    changes: &mut [Change],
    leaving: &[NonNull<super::records::Server>],
    arriving: &mut [Arrival<'_>],
) -> Result<u64, super::memory::Full> {
    locked.reserve(record, changes, arriving)?;
    Ok(locked.publish(record, changes, leaving, arriving))
}

/// Lets an upstream claim its servers, as a reload does.
pub(super) fn reload(locked: &mut Locked, claims: &[Claim<'_>]) -> (NonNull<Upstream>, Claimed) {
    let record = locked.upstream(b"u").unwrap();
    let mut claimed = Claimed::with_room(claims.len());
    locked.claim(record, 1, 0, claims, &mut claimed, Wishes::Dropped).unwrap();
    (record, claimed)
}

/// The same, with what is said of changes that are lost.
pub(super) fn adopt(locked: &mut Locked, claims: &[Claim<'_>]) -> (NonNull<Upstream>, Vec<String>) {
    let (record, claimed) = reload(locked, claims);
    (record, claimed.losses().told().map(|lost| lost.to_string()).collect())
}

/// The ids of an upstream's servers.
pub(super) fn ids(locked: &Locked, record: NonNull<Upstream>) -> Vec<u64> {
    // SAFETY: linked records, under the lock.
    locked.servers(record).map(|server| unsafe { server.as_ref() }.id).collect()
}

/// Takes a server down, with a reason.
pub(super) fn down(
    locked: &mut Locked,
    record: NonNull<Upstream>,
    id: u64,
) -> Result<u64, super::memory::Full> {
    let server = locked.server(record, id).unwrap();
    let reason = Some(Reason::new(1, &"127.0.0.1".into(), Some("test")));
    commit(
        locked,
        record,
        &mut [Change::new(server, Terms { admin: Admin::Down, ..Terms::default() }, reason)],
        &[],
        &mut [],
    )
}

/// What is wanted of the first server with this text, and the note of it.
pub(super) fn wanted(
    locked: &Locked,
    record: NonNull<Upstream>,
    server: &str,
    name: &str,
) -> (Admin, Option<String>) {
    let revision = locked.revision(record);
    let found = locked.finder(record).find(Group::Primary, server.as_bytes(), name.as_bytes()).unwrap();
    (found.wish(revision).terms().admin, found.reason(revision).and_then(|reason| reason.note()))
}

#[test]
fn ids_follow_the_directive_and_are_never_used_again() {
    let (store, _) = store();
    let mut locked = store.lock();
    let (record, _) = adopt(&mut locked, &[claim("a", "1"), claim("b", "2"), claim("b", "3")]);
    assert_eq!(ids(&locked, record), [0, 1, 2]);
    // Another order, and an address that changed.
    adopt(&mut locked, &[claim("b", "3"), claim("a", "9"), claim("b", "2")]);
    assert_eq!(ids(&locked, record), [2, 0, 1]);
    // One leaves, one is new.
    adopt(&mut locked, &[claim("c", "4"), claim("a", "9")]);
    assert_eq!(ids(&locked, record), [3, 0]);
    // It returns.
    adopt(&mut locked, &[claim("b", "2"), claim("a", "9")]);
    assert_eq!(ids(&locked, record), [4, 0]);
}

#[test]
fn duplicates_keep_their_order() {
    let (store, _) = store();
    let mut locked = store.lock();
    let claims = [claim("a", "1"), claim("a", "1"), claim("a", "1")];
    let (record, _) = adopt(&mut locked, &claims);
    adopt(&mut locked, &claims);
    assert_eq!(ids(&locked, record), [0, 1, 2]);
    let mut finder = locked.finder(record);
    for id in 0..3 {
        assert_eq!(finder.find(Group::Primary, b"a", b"1").map(|found| found.id()), Some(id));
    }
}

#[test]
fn twins_have_a_record_each_when_one_between_them_has_no_peer() {
    let (store, _) = store();
    let mut locked = store.lock();
    let twin = |name| Claim { managed: true, ..claim("twin", name) };
    let (record, _) = adopt(&mut locked, &[twin("1"), twin("2"), twin("1"), twin("2")]);
    down(&mut locked, record, 2).unwrap();
    let claims = [twin("2"), twin("2")];
    let mut claimed = Claimed::with_room(claims.len());
    locked.claim(record, 1, 7, &claims, &mut claimed, Wishes::Kept).unwrap();
    assert_eq!(ids(&locked, record), [1, 2, 3], "what was changed by hand stays");
    // A later walk finds the same.
    for _ in 0..2 {
        let mut finder = locked.finder(record);
        let mut next = || finder.find(Group::Primary, b"twin", b"2").map(|found| found.id());
        assert_eq!([next(), next()], [Some(1), Some(3)]);
        assert_eq!(next(), Some(1), "more peers than records");
    }
}

#[test]
fn a_lock_that_another_process_keeps_is_not_waited_for_without_end() {
    use std::time::{Duration, Instant};

    let (store, zone) = store();
    // SAFETY: the fixture made a slab pool at the start of the zone.
    let word = unsafe { &raw mut (*fixture::pool(zone)).lock.lock };
    // SAFETY: nobody else uses the zone.
    unsafe { *word = 4711 };
    let wait = |limit| {
        let start = Instant::now();
        let taken = store.lock_within(limit).map(drop);
        (taken, start.elapsed())
    };
    let limit = Duration::from_millis(200);
    assert_eq!(wait(AT_ONCE).0, Err(Holder(4711)));
    let (taken, waited) = wait(limit);
    assert_eq!(taken, Err(Holder(4711)));
    assert!(waited >= limit, "{waited:?}");
    let (taken, waited) = wait(limit);
    assert_eq!(taken, Err(Holder(4711)));
    assert!(waited < limit / 2, "it is waited for once: {waited:?}");
    // SAFETY: as above.
    unsafe { *word = 0 };
    assert_eq!(wait(AT_ONCE).0, Ok(()));
    // SAFETY: as above.
    unsafe { *word = 4711 };
    let (_, waited) = wait(limit);
    assert!(waited >= limit, "it was to be had since: {waited:?}");
}

#[test]
fn a_change_is_seen_with_its_reason_and_counted() {
    let (store, _) = store();
    let mut locked = store.lock();
    let (record, _) = adopt(&mut locked, &[claim("a", "1"), claim("b", "2")]);
    assert_eq!(down(&mut locked, record, 1), Ok(1));
    assert_eq!(wanted(&locked, record, "b", "2"), (Admin::Down, Some("test".into())));
    assert_eq!(wanted(&locked, record, "a", "1"), (Admin::Up, None));
    assert_eq!(down(&mut locked, record, 0), Ok(2));
    assert_eq!(locked.revision(record), 2);
}

#[test]
fn a_reload_drops_changes_says_which_and_counts_itself() {
    let (store, _) = store();
    let mut locked = store.lock();
    let claims = [claim("a", "1"), claim("b", "2")];
    let (record, _) = adopt(&mut locked, &claims);
    down(&mut locked, record, 1).unwrap();
    assert_eq!(
        adopt(&mut locked, &claims).1,
        ["upstream \"u\" server \"b\": the reload dropped run-time changes: state down -> up"]
    );
    assert_eq!(wanted(&locked, record, "b", "2"), (Admin::Up, None));
    assert_eq!(locked.revision(record), 2);
    assert!(adopt(&mut locked, &claims).1.is_empty());
    assert_eq!(locked.revision(record), 2);
}

#[test]
fn changes_survive_when_nginx_resolves_a_name_again() {
    let (store, _) = store();
    let mut locked = store.lock();
    let managed = |name| Claim { managed: true, ..claim("a", name) };
    let (record, _) = adopt(&mut locked, &[managed("1"), managed("2")]);
    down(&mut locked, record, 1).unwrap();
    let claims = [managed("3"), managed("2")];
    let mut claimed = Claimed::with_room(claims.len());
    locked.claim(record, 1, 7, &claims, &mut claimed, Wishes::Kept).unwrap();
    assert_eq!(ids(&locked, record), [1, 2]);
    assert_eq!(wanted(&locked, record, "a", "2"), (Admin::Down, Some("test".into())));
    assert_eq!((locked.membership(record), locked.revision(record)), (7, 1));
}

#[test]
fn what_a_dead_writer_did_not_publish_is_never_seen() {
    let (store, _) = store();
    let mut locked = store.lock();
    let (record, _) = adopt(&mut locked, &[claim("a", "1"), claim("b", "2")]);
    down(&mut locked, record, 0).unwrap();
    // As if a worker died before the word that publishes: the change is written, the revision is not.
    down(&mut locked, record, 1).unwrap();
    // SAFETY: the record is linked, and the lock is held.
    unsafe { (*record.as_ptr()).revision = 1.into() };
    locked.header().writing = record.as_ptr();
    assert_eq!(wanted(&locked, record, "b", "2"), (Admin::Up, None));
    drop(locked);

    let mut locked = store.lock();
    assert_eq!(locked.header().writing, ptr::null_mut());
    // The next change of another server must not publish it either.
    assert_eq!(down(&mut locked, record, 0), Ok(2));
    assert_eq!(wanted(&locked, record, "b", "2"), (Admin::Up, None));
    assert_eq!(wanted(&locked, record, "a", "1").0, Admin::Down);
}

#[test]
fn changes_without_end_take_no_memory() {
    let (store, zone) = store();
    let mut locked = store.lock();
    let (record, _) = adopt(&mut locked, &[claim("a", "1")]);
    for _ in 0..3 {
        down(&mut locked, record, 0).unwrap();
    }
    let before = fixture::free_pages(zone);
    for _ in 0..10_000 {
        down(&mut locked, record, 0).unwrap();
    }
    assert_eq!(fixture::free_pages(zone), before);
}

#[test]
fn an_upstream_that_left_is_forgotten_and_its_ids_are_not() {
    let (store, _) = store();
    let mut locked = store.lock();
    let (record, _) = adopt(&mut locked, &[claim("a", "1")]);
    down(&mut locked, record, 0).unwrap();
    let mut forgotten = Vec::new();
    locked.forget_others(1, |name, losses| forgotten.push((name.to_vec(), losses.count())));
    assert!(forgotten.is_empty());
    locked.forget_others(2, |name, losses| forgotten.push((name.to_vec(), losses.count())));
    assert_eq!(forgotten, [(b"u".to_vec(), 1)]);
    assert!(ids(&locked, record).is_empty());
    let (record, _) = adopt(&mut locked, &[claim("a", "1")]);
    assert_eq!(ids(&locked, record), [1]);
}

#[test]
fn a_zone_is_found_again_as_it_was_left() {
    let (store, zone) = store();
    let (record, _) = adopt(&mut store.lock(), &[claim("a", "1")]);
    down(&mut store.lock(), record, 0).unwrap();
    // SAFETY: the same zone, as after a reload.
    let again = unsafe { Store::open(zone) }.unwrap();
    let mut locked = again.lock();
    assert_eq!(locked.upstream(b"u"), Ok(record));
    assert_eq!(locked.revision(record), 1);
}

/// Adds a server at run time. Returns its id.
pub(super) fn add(
    locked: &mut Locked,
    record: NonNull<Upstream>,
    new: Claim<'_>,
) -> Result<u64, super::memory::Full> {
    let reason = Some(Reason::new(1, &"127.0.0.1".into(), None));
    let mut arriving = [Arrival::new(new, None, reason)];
    commit(locked, record, &mut [], &[], &mut arriving)?;
    Ok(arriving[0].id)
}

#[test]
fn servers_come_go_and_move() {
    let (store, _) = store();
    let mut locked = store.lock();
    let backup = Claim { group: Group::Backup, ..claim("z", "9") };
    let (record, _) = adopt(&mut locked, &[claim("a", "1"), claim("b", "2"), backup]);
    assert_eq!(add(&mut locked, record, claim("c", "3")), Ok(3));
    assert_eq!(ids(&locked, record), [0, 1, 3, 2], "a new primary is the last of the primaries");
    assert_eq!(add(&mut locked, record, Claim { group: Group::Backup, ..claim("y", "8") }), Ok(4));
    assert_eq!(ids(&locked, record), [0, 1, 3, 2, 4]);

    let gone = locked.server(record, 0).unwrap();
    commit(&mut locked, record, &mut [], &[gone], &mut []).unwrap();
    assert_eq!(ids(&locked, record), [1, 3, 2, 4]);

    down(&mut locked, record, 1).unwrap();
    let old = locked.server(record, 1).unwrap();
    let reason = locked.reason(record, old);
    let moved = Claim { terms: Terms { admin: Admin::Down, ..Terms::default() }, ..claim("b2", "22") };
    commit(&mut locked, record, &mut [], &[old], &mut [Arrival::new(moved, Some(old), reason)]).unwrap();
    assert_eq!(ids(&locked, record), [1, 3, 2, 4], "it keeps its id and its place");
    assert_eq!(wanted(&locked, record, "b2", "22"), (Admin::Down, Some("test".into())));
    assert_eq!(locked.revision(record), 5);
}

#[test]
fn arrivals_and_departures_of_a_dead_writer_did_not_happen() {
    let (store, zone) = store();
    let mut locked = store.lock();
    let (record, _) = adopt(&mut locked, &[claim("a", "1"), claim("b", "2")]);
    add(&mut locked, record, claim("c", "3")).unwrap();
    let before = fixture::free_pages(zone);
    // As if a worker died before the word that publishes.
    let gone = locked.server(record, 0).unwrap();
    add(&mut locked, record, claim("d", "4")).unwrap();
    // SAFETY: the records are linked, and the lock is held.
    unsafe {
        (*gone.as_ptr()).gone = 2;
        (*record.as_ptr()).revision = 1.into();
    }
    locked.header().writing = record.as_ptr();
    drop(locked);

    let mut locked = store.lock();
    assert_eq!(ids(&locked, record), [0, 1, 2]);
    assert_eq!(fixture::free_pages(zone), before);
    assert_eq!(add(&mut locked, record, claim("e", "5")), Ok(4), "its id is not used again");
    assert_eq!(ids(&locked, record), [0, 1, 2, 4]);
}

#[test]
fn comparing_says_who_is_missing_and_who_is_a_stranger() {
    let (store, _) = store();
    let mut locked = store.lock();
    let managed = Claim { managed: true, ..claim("m", "7") };
    let (record, _) = adopt(&mut locked, &[claim("a", "1"), claim("a", "1"), claim("b", "2"), managed]);
    let rows = [("a", "1"), ("x", "5"), ("b", "2")];
    let rows = rows.map(|(server, name)| (Group::Primary, server.as_bytes(), name.as_bytes()));
    let (mut found, mut missing) = ([false; 3], Vec::new());
    locked.compare(record, rows.into_iter(), false, &mut found, |record| missing.push(record.id()));
    assert_eq!((found, missing), ([true, false, true], vec![1]));
}

#[test]
fn what_another_configuration_calls_otherwise_is_compared_by_its_address() {
    let (store, _) = store();
    let mut locked = store.lock();
    let backup = Claim { group: Group::Backup, ..claim("b", "2") };
    let (record, _) = adopt(&mut locked, &[claim("a", "1"), backup, claim("c", "3")]);
    let rows = [("x", "1"), ("a", "1"), ("y", "2"), ("z", "9")];
    let rows = rows.map(|(server, name)| (Group::Primary, server.as_bytes(), name.as_bytes()));
    let (mut found, mut missing) = ([false; 4], Vec::new());
    locked.compare(record, rows.into_iter(), true, &mut found, |record| missing.push(record.id()));
    assert_eq!((found, missing), ([false, true, true, false], vec![2]), "each record is one row's");
}

#[test]
fn servers_that_were_removed_are_remembered_but_not_those_that_a_reload_dropped() {
    let (store, _) = store();
    let mut locked = store.lock();
    let (record, _) = adopt(&mut locked, &[claim("a", "1"), claim("b", "2"), claim("c", "3")]);
    let then = locked.departures(record);
    let gone = locked.server(record, 1).unwrap();
    commit(&mut locked, record, &mut [], &[gone], &mut []).unwrap();
    let is_gone = |locked: &Locked, then| {
        ["1", "2", "3"].map(|name| locked.gone_since(record, then).has(name.as_bytes()))
    };
    assert_eq!(is_gone(&locked, then), [false, true, false]);
    let then = locked.departures(record);
    assert_eq!(is_gone(&locked, then), [false; 3]);
    adopt(&mut locked, &[claim("a", "1")]);
    assert_eq!(is_gone(&locked, then), [false; 3]);
}

#[test]
fn a_primary_that_nginx_resolved_stands_before_the_backups() {
    let (store, _) = store();
    let mut locked = store.lock();
    let backup = Claim { group: Group::Backup, ..claim("b", "2") };
    let (record, _) = adopt(&mut locked, &[claim("a", "1"), backup]);
    let resolve = |locked: &mut Locked, claims: &[Claim<'_>]| {
        let mut claimed = Claimed::with_room(claims.len());
        locked.claim(record, 1, 7, claims, &mut claimed, Wishes::Kept).unwrap();
    };
    let managed = |name| Claim { managed: true, ..claim("c", name) };
    let resolved = Claim { group: Group::Backup, ..managed("5") };
    resolve(&mut locked, &[claim("a", "1"), managed("3"), managed("4"), backup, resolved]);
    assert_eq!(ids(&locked, record), [0, 2, 3, 1, 4]);
    assert_eq!(add(&mut locked, record, claim("d", "6")), Ok(5));
    resolve(&mut locked, &[claim("a", "1"), claim("d", "6"), backup]);
    let gone = locked.server(record, 5).unwrap();
    commit(&mut locked, record, &mut [], &[gone], &mut []).unwrap();
    assert_eq!(ids(&locked, record), [0, 1]);
    // SAFETY: records of upstreams are never freed; the lock is held.
    let last = unsafe { (*record.as_ptr()).last }.map(NonNull::new);
    assert_eq!(last, [locked.server(record, 0), locked.server(record, 1)]);
    assert_eq!(add(&mut locked, record, claim("e", "7")), Ok(6));
    assert_eq!(ids(&locked, record), [0, 6, 1]);
}

#[test]
fn resolving_again_neither_frees_nor_makes_what_was_changed_by_hand() {
    let (store, _) = store();
    let mut locked = store.lock();
    let managed = |name| Claim { managed: true, ..claim("m", name) };
    let (record, _) = adopt(&mut locked, &[managed("1"), claim("a", "2")]);
    add(&mut locked, record, claim("b", "3")).unwrap();
    // "b" was added by a process that died before its peers showed it; "c" was removed by one.
    let claims = [managed("4"), claim("a", "2"), claim("c", "5")];
    let mut claimed = Claimed::with_room(claims.len());
    locked.claim(record, 1, 9, &claims, &mut claimed, Wishes::Kept).unwrap();
    assert_eq!(ids(&locked, record), [1, 2, 3]);
}

#[test]
fn servers_that_come_and_go_without_end_take_no_memory() {
    let (store, zone) = store();
    let mut locked = store.lock();
    let (record, _) = adopt(&mut locked, &[claim("a", "1")]);
    let mut before = None;
    for _ in 0..2_000 {
        let id = add(&mut locked, record, claim("c", "3")).unwrap();
        let gone = locked.server(record, id).unwrap();
        commit(&mut locked, record, &mut [], &[gone], &mut []).unwrap();
        let free = fixture::free_pages(zone);
        assert_eq!(*before.get_or_insert(free), free);
    }
}
