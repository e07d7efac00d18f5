//! Random changes against a model, with writers that die at every step.

use std::collections::{HashMap, HashSet};
use std::ptr::NonNull;

use crate::model::id::Group;
use crate::model::server::Terms;
use crate::model::state::Admin;
use crate::nginx::fixture;

use super::adopt::{Claim, Claimed, Wishes};
use super::commit::{Arrival, Change};
use super::index::{FEW, Key, SOME};
use super::{Locked, Store, Upstream, death};

/// A server of the model.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Server {
    id: u64,
    group: Group,
    server: String,
    name: String,
    down: bool,
    /// Whether it stays when nginx does not resolve to it any more.
    stays: bool,
}

/// The same choices on every machine.
struct Random(u64);

impl Random {
    fn below(&mut self, limit: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        ((self.0 >> 33) as usize) % limit
    }
}

/// What is done to a store and its model.
#[derive(Clone, Debug)]
enum Step {
    Add(Group, String, String),
    Remove(usize),
    Readdress(usize, String),
    Down(usize, bool),
    /// Several at once: one leaves, another is new.
    Exchange(usize, String),
    /// nginx resolves a name again: this one leaves, with its twins, and another is new.
    Resolve(Option<usize>, Group, String, String),
}

/// A claim for a server of the model.
fn claim(server: &Server) -> Claim<'_> {
    Claim {
        group: server.group,
        server: server.server.as_bytes(),
        name: server.name.as_bytes(),
        terms: Terms::default(),
        managed: false,
    }
}

/// Whether two servers are the same to nginx.
fn are_twins(one: &Server, other: &Server) -> bool {
    (one.group, &one.server, &one.name) == (other.group, &other.server, &other.name)
}

/// The end of a group in the order of the list.
fn end(model: &[Server], group: Group) -> usize {
    match group {
        Group::Primary => model.iter().filter(|server| server.group == Group::Primary).count(),
        Group::Backup => model.len(),
    }
}

/// Does a step to the model.
fn imagine(model: &mut Vec<Server>, next_id: &mut u64, step: &Step) {
    let mut add = |model: &mut Vec<Server>, group, server: &String, name: &String, stays| {
        let (server, name) = (server.clone(), name.clone());
        model.insert(end(model, group), Server { id: *next_id, group, server, name, down: false, stays });
        *next_id += 1;
    };
    match step {
        Step::Add(group, server, name) => add(model, *group, server, name, true),
        Step::Remove(at) => drop(model.remove(*at)),
        Step::Readdress(at, name) => {
            model[*at].server.clone_from(name);
            model[*at].name.clone_from(name);
            model[*at].down = false;
            model[*at].stays = true;
        }
        Step::Down(at, down) => {
            model[*at].down = *down;
            model[*at].stays = true;
        }
        Step::Exchange(at, name) => {
            let group = model[*at].group;
            drop(model.remove(*at));
            add(model, group, name, name, true);
        }
        Step::Resolve(gone, group, server, name) => {
            if let Some(gone) = gone.map(|at| model[at].clone()) {
                model.retain(|server| server.stays || !are_twins(server, &gone));
            }
            add(model, *group, server, name, false);
        }
    }
}

/// What is said of a change of state.
fn note(down: bool) -> &'static str {
    if down { "down" } else { "up" }
}

/// Does a step to the store; false if it has no room.
fn perform(locked: &mut Locked, record: NonNull<Upstream>, model: &[Server], step: &Step) -> bool {
    let find = |locked: &Locked, at: usize| locked.server(record, model[at].id).unwrap();
    let new = |group, server: &String, name: &String| Server {
        id: 0,
        group,
        server: server.clone(),
        name: name.clone(),
        down: false,
        stays: false,
    };
    let (mut changes, mut leaving, mut added, mut heir) = (Vec::new(), Vec::new(), None, None);
    match step {
        Step::Add(group, server, name) => added = Some(new(*group, server, name)),
        Step::Remove(at) => leaving.push(find(locked, *at)),
        Step::Readdress(at, name) => {
            leaving.push(find(locked, *at));
            heir = Some(find(locked, *at));
            added = Some(new(model[*at].group, name, name));
        }
        Step::Down(at, down) => {
            let admin = if *down { Admin::Down } else { Admin::Up };
            let reason = super::records::Reason::new(1, &"".into(), Some(note(*down)));
            changes.push(Change::new(find(locked, *at), Terms { admin, ..Terms::default() }, Some(reason)));
        }
        Step::Exchange(at, name) => {
            leaving.push(find(locked, *at));
            added = Some(new(model[*at].group, name, name));
        }
        Step::Resolve(gone, group, server, name) => {
            let is_gone = |server: &Server| gone.is_some_and(|at| are_twins(server, &model[at]));
            let added = new(*group, server, name);
            let servers = model.iter().filter(|server| !is_gone(server)).chain([&added]);
            let claims: Vec<_> = servers.map(|server| Claim { managed: true, ..claim(server) }).collect();
            let mut claimed = Claimed::with_room(claims.len());
            return locked.claim(record, 1, 0, &claims, &mut claimed, Wishes::Kept).is_ok();
        }
    }
    let mut arriving: Vec<_> = added.iter().map(|server| Arrival::new(claim(server), heir, None)).collect();
    if locked.reserve(record, &mut changes, &mut arriving).is_err() {
        return false;
    }
    locked.publish(record, &mut changes, &leaving, &mut arriving);
    true
}

/// A step that the model can do.
fn choose(random: &mut Random, model: &[Server], most: usize) -> Step {
    // Few names, so that several servers share one.
    let name = format!("10.0.0.{}:80", random.below(40));
    let group = if random.below(4) == 0 { Group::Backup } else { Group::Primary };
    let text = if random.below(3) == 0 { format!("host{}", random.below(4)) } else { name.clone() };
    if model.is_empty() || (model.len() < most && random.below(3) == 0) {
        return Step::Add(group, text, name);
    }
    let at = random.below(model.len());
    match random.below(5) {
        0 => Step::Remove(at),
        1 => Step::Readdress(at, name),
        2 => Step::Down(at, random.below(2) == 0),
        // What leaves and what is new are not the same.
        3 => Step::Resolve((model[at].name != name).then_some(at), group, text, name),
        _ => Step::Exchange(at, name),
    }
}

/// What is in the store, in the order of its list; every other way to a server is tried, too.
fn look(locked: &mut Locked, record: NonNull<Upstream>) -> Vec<Server> {
    let revision = locked.revision(record);
    let mut found = Vec::new();
    let mut last = [std::ptr::null_mut(); 2];
    let mut before = std::ptr::null_mut();
    let mut names: HashMap<Vec<u8>, Vec<u64>> = HashMap::new();
    let mut texts: HashMap<Vec<u8>, Vec<u64>> = HashMap::new();
    for at in locked.servers(record) {
        // SAFETY: linked records, under the lock.
        let server = unsafe { at.as_ref() };
        assert!(server.exists(revision) && server.gone == 0);
        assert_eq!(server.prev, before, "the way back");
        before = at.as_ptr();
        last[usize::from(server.group().is_backup())] = at.as_ptr();
        assert_eq!(locked.server(record, server.id), Some(at), "by id");
        names.entry(server.name().to_vec()).or_default().push(server.id);
        texts.entry(server.server().to_vec()).or_default().push(server.id);
        let down = server.wish(revision).terms().admin == Admin::Down;
        if let Some(reason) = locked.reason(record, at) {
            assert_eq!(reason.note().as_deref(), Some(note(down)), "the reason of its state");
        }
        found.push(Server {
            id: server.id,
            group: server.group(),
            server: String::from_utf8(server.server().to_vec()).unwrap(),
            name: String::from_utf8(server.name().to_vec()).unwrap(),
            down,
            stays: server.managed == 0 || server.wishes.iter().any(|wish| wish.revision > 0),
        });
    }
    let ids = |key: Key<'_>, matches: &dyn Fn(&super::records::Server) -> bool| -> Vec<u64> {
        let found = locked.candidates(record, key).filter(|server| matches(server));
        let mut ids: Vec<_> = found.map(|server| server.id).collect();
        ids.sort_unstable();
        ids
    };
    for ids in names.values_mut().chain(texts.values_mut()) {
        ids.sort_unstable();
    }
    for (name, wanted) in &names {
        assert_eq!(ids(Key::Name(name), &|server| server.name() == name), *wanted, "by address");
    }
    for (text, wanted) in &texts {
        assert_eq!(ids(Key::Text(text), &|server| server.server() == text), *wanted, "by text");
    }
    // SAFETY: likewise.
    unsafe {
        assert_eq!((*record.as_ptr()).last, last, "the ends");
        assert_eq!((*record.as_ptr()).count, found.len() as u64);
    }
    found
}

/// A store with an upstream of no servers, and its zone.
fn store(pages: usize) -> (Store, NonNull<nginx_sys::ngx_shm_zone_t>, NonNull<Upstream>) {
    let zone = fixture::shm_zone(pages);
    // SAFETY: the fixture made a slab pool at the start of the zone.
    let store = unsafe { Store::open(zone) }.unwrap();
    let mut locked = store.lock();
    let record = locked.upstream(b"u").unwrap();
    let mut claimed = Claimed::with_room(0);
    locked.claim(record, 1, 0, &[], &mut claimed, Wishes::Dropped).unwrap();
    drop(locked);
    (store, zone, record)
}

#[test]
fn random_changes_are_those_of_the_model() {
    let mut random = Random(0x5eed);
    for most in [1, 16, 17, 33, 200] {
        let (store, _, record) = store(64);
        let (mut model, mut next_id) = (Vec::new(), 0);
        for _ in 0..400 {
            let step = choose(&mut random, &model, most);
            let mut locked = store.lock();
            assert!(perform(&mut locked, record, &model, &step));
            imagine(&mut model, &mut next_id, &step);
            assert_eq!(look(&mut locked, record), model, "{step:?}");
        }
    }
}

#[test]
fn a_writer_that_dies_at_any_step_has_done_all_or_nothing() {
    let mut random = Random(0xdead);
    let mut deaths = 0;
    for _ in 0..150 {
        let (store, _, record) = store(32);
        let (mut model, mut next_id) = (Vec::new(), 0);
        for _ in 0..random.below(60) {
            let step = choose(&mut random, &model, 34);
            perform(&mut store.lock(), record, &model, &step);
            imagine(&mut model, &mut next_id, &step);
        }
        for moment in 0.. {
            let step = choose(&mut random, &model, 34);
            let mut after = model.clone();
            let mut next_after = next_id;
            imagine(&mut after, &mut next_after, &step);
            let survived = death::survived(moment, || {
                perform(&mut store.lock(), record, &model, &step);
            });
            let mut locked = store.lock();
            assert!(locked.header().writing.is_null());
            let found = look(&mut locked, record);
            // An id that was given to a server that never came is not given again.
            let given = found.iter().map(|server| server.id + 1).max().unwrap_or(0);
            let is_done = match step {
                // Each server that comes or leaves is a step of its own.
                Step::Resolve(..) if !survived => {
                    found.iter().all(|server| model.contains(server) || after.contains(server))
                        && after.iter().all(|server| found.contains(server) || !model.contains(server))
                }
                _ => found == after,
            };
            assert!(is_done || (!survived && found == model), "{step:?} at {moment}: {found:?}");
            drop(locked);
            deaths += usize::from(!survived);
            model = found;
            // SAFETY: records of upstreams are never freed.
            next_id = unsafe { (*record.as_ptr()).next_id };
            assert!(next_id >= given);
            if survived {
                break;
            }
        }
    }
    assert!(deaths > 500, "{deaths}");
}

#[test]
fn a_writer_that_dies_while_the_index_grows_loses_nothing() {
    for before in [FEW as usize, SOME as usize, 64] {
        for moment in 0.. {
            let (store, _, record) = store(64);
            let (mut model, mut next_id) = (Vec::new(), 0);
            let add = |at: usize| Step::Add(Group::Primary, format!("h{at}"), format!("n{at}"));
            for at in 0..before {
                perform(&mut store.lock(), record, &model, &add(at));
                imagine(&mut model, &mut next_id, &add(at));
            }
            // SAFETY: records of upstreams are never freed.
            let index = unsafe { (*record.as_ptr()).index };
            let survived = death::survived(moment, || {
                perform(&mut store.lock(), record, &model, &add(before));
            });
            let mut locked = store.lock();
            let found = look(&mut locked, record);
            assert_eq!(found.get(..before), Some(model.as_slice()), "{before} at {moment}");
            if survived {
                assert_eq!(found.len(), before + 1);
                // SAFETY: likewise.
                assert_ne!(unsafe { (*record.as_ptr()).index }, index, "it grew");
                break;
            }
        }
    }
}

#[test]
fn one_who_dies_while_putting_right_what_another_left_is_put_right_in_turn() {
    let (store, _, record) = store(32);
    let (mut model, mut next_id) = (Vec::new(), 0);
    for at in 0..20 {
        let step = Step::Add(Group::Primary, format!("h{at}"), format!("n{at}"));
        perform(&mut store.lock(), record, &model, &step);
        imagine(&mut model, &mut next_id, &step);
    }
    for moment in 0..60 {
        // A change of which the first steps are done.
        assert!(!death::survived(4, || {
            perform(&mut store.lock(), record, &model, &Step::Exchange(3, "new".into()));
        }));
        death::survived(moment, || drop(store.lock()));
        assert_eq!(look(&mut store.lock(), record), model, "at {moment}");
    }
}

#[test]
fn a_name_that_resolves_again_while_a_writer_dies_leaves_a_whole_list() {
    let names = ["1", "2", "3", "4", "5"];
    let server = |name: &str| Server {
        id: 0,
        group: Group::Primary,
        server: "a".into(),
        name: name.into(),
        down: false,
        stays: false,
    };
    for moment in 0..80 {
        let (store, _, record) = store(32);
        let adopt = |names: &[&str], wishes| {
            let servers: Vec<_> = names.iter().map(|name| server(name)).collect();
            let claims: Vec<_> =
                servers.iter().map(|server| Claim { managed: true, ..claim(server) }).collect();
            let mut claimed = Claimed::with_room(claims.len());
            let mut locked = store.lock();
            locked.claim(record, 1, 0, &claims, &mut claimed, wishes).unwrap();
        };
        adopt(&names, Wishes::Dropped);
        let survived = death::survived(moment, || adopt(&["2", "9", "4", "8", "7"], Wishes::Kept));
        let found = look(&mut store.lock(), record);
        let ids: HashSet<_> = found.iter().map(|server| server.id).collect();
        // SAFETY: records of upstreams are never freed.
        let next_id = unsafe { (*record.as_ptr()).next_id };
        assert!(ids.len() == found.len() && ids.iter().all(|id| *id < next_id), "{ids:?} at {moment}");
        let found: Vec<_> = found.into_iter().map(|server| server.name).collect();
        assert!(found.iter().any(|name| name == "2") && found.iter().any(|name| name == "4"), "{found:?}");
        assert!(!survived || found == ["2", "4", "9", "8", "7"], "{found:?}");
    }
}

#[test]
fn without_room_for_an_index_all_is_found_all_the_same() {
    let (store, zone, record) = store(32);
    // What an upstream has whose zone was full from the start.
    // SAFETY: nobody else uses the store.
    unsafe { (*record.as_ptr()).index = std::ptr::null_mut() };
    let mut random = Random(0xf011);
    let (mut model, mut next_id) = (Vec::new(), 0);
    let mut full = 0;
    // Pages, of which a large index needs some in a row, run out; chunks for records do not.
    for round in 0..3_000 {
        let step = choose(&mut random, &model, 600);
        let mut locked = store.lock();
        if perform(&mut locked, record, &model, &step) {
            imagine(&mut model, &mut next_id, &step);
        } else {
            full += 1;
        }
        if round % 50 == 0 {
            assert_eq!(look(&mut locked, record), model, "{step:?}");
        }
    }
    assert!(full > 0 && fixture::free_pages(zone) < 2, "{full}");
    assert_eq!(look(&mut store.lock(), record), model);
}
