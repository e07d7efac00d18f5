//! Lists against upstreams, each rule in a table, and random lists against a model that only counts.

use std::cell::Cell;

use crate::model::id::Group;
use crate::model::list::text::TextReader;
use crate::model::list::{List, ListPlace};
use crate::model::params::Params;
use crate::model::query::random::Random;
use crate::model::server::Terms;
use crate::model::snapshot::{Method, Peer};
use crate::model::state::Admin;

use super::super::error::OpError;
use super::super::execute::ATTEMPTS;
use super::super::fake::{Fake, fake, peer};
use super::super::guard::Guard;
use super::super::plan::NOTE_MAX;
use super::super::rules::CONSISTENT_WEIGHT_MAX;
use super::*;

/// A wish for the upstream of the fake.
fn wanted(text: &str) -> ReplaceCommand {
    let mut reader = TextReader::new(text.as_bytes().to_vec());
    while reader.step().unwrap() {}
    let servers = reader.into_lists().into_iter().next().map(|list| list.servers).unwrap_or_default();
    ReplaceCommand {
        lists: vec![List { place: ListPlace::line(1), upstream: Some("u".into()), servers }],
        is_dry: false,
        force: false,
        client: "192.0.2.1".into(),
        note: None,
    }
}

/// What comes of a wish.
fn carry_out(fake: &Fake, wanted: ReplaceCommand) -> Result<Replaced, OpError> {
    let mut work = Replacement::new(fake, wanted).map_err(|failure| failure.error)?;
    for _ in 0..100_000 {
        if let Progress::Done(mut done) = work.step(fake).map_err(|failure| failure.error)? {
            assert_eq!(done.len(), 1);
            return Ok(done.remove(0));
        }
    }
    panic!("it does not end")
}

/// What comes of a list: added, removed, set, and how many are unchanged; or the words of the refusal.
fn outcome(fake: &Fake, text: &str) -> Result<String, String> {
    let done = carry_out(fake, wanted(text)).map_err(|error| error.to_string())?;
    let added = done.added.iter().map(|it| format!("+{}", it.text));
    let removed = done.removed.iter().map(|it| format!("-{}", it.id));
    let set = done.entries.iter().map(|it| {
        let what: Vec<_> = it.differences().iter().map(|it| format!("{}>{}", it.what, it.to)).collect();
        format!("{}:{}", it.id, what.join(","))
    });
    let all: Vec<_> = added.chain(removed).chain(set).collect();
    Ok(format!("{} ={}", all.join(" "), done.unchanged))
}

/// The servers of the fake, as a list.
const SAME: &str = "server host:81; server [::1]; server unix:/s; server 127.0.0.1:82 backup;";

#[test]
fn what_differs_and_nothing_else() {
    let table = [
        (SAME, Ok(" =5")),
        // The order is no difference, and any text for the address will do.
        ("server 127.0.0.1:82 backup; server unix:/s; server [0::1]:80; server host:81;", Ok(" =5")),
        (
            "server 127.0.0.2:81; server 127.0.0.1:81; server [::1]; server unix:/s; server 127.0.0.1:82 backup;",
            Ok(" =5"),
        ),
        ("server 127.0.0.2:81; server [::1]; server unix:/s; server 127.0.0.1:82 backup;", Ok("-0 =4")),
        (
            "server host:81 weight=2; server [::1] down; server unix:/s fail_timeout=10s drain; server 10.0.0.1;",
            Ok("+10.0.0.1 -4 0:weight>2 1:weight>2 2:state>down 3:state>draining =0"),
        ),
        // To the other list it goes as a new server.
        (
            "server host:81; server [::1] backup; server unix:/s; server 127.0.0.1:82 backup;",
            Ok("+[::1] -2 =4"),
        ),
        // The very same words are one server.
        ("server host:81; server host:81;", Ok("-2 -3 -4 =2")),
        ("server host:81; server HOST:81;", Err("line 1: server \"HOST:81\" is also in line 1")),
        ("server [::1];\nserver [::1]:80;", Err("line 2: server \"[::1]:80\" is also in line 1")),
        ("server host:81;\nserver 127.0.0.2:81;", Err("line 2: server \"127.0.0.2:81\" is also in line 1")),
        ("server host:81 backup;", Err("line 1: can't change server type (primary<->backup)")),
        (
            "server other:81;",
            Err("line 1: host name \"other:81\" where an address is needed, and no server has this text"),
        ),
        ("", Err("the list has no servers, use \"force=\" to remove all of them")),
    ];
    for (text, wanted) in table {
        let found = outcome(&fake(), text);
        assert_eq!(found, wanted.map(str::to_owned).map_err(str::to_owned), "{text}");
    }
}

#[test]
fn a_state_that_is_not_given_is_up() {
    let mut down = fake();
    down.peers[3].terms.admin = Admin::Down;
    let done = carry_out(&down, wanted(SAME)).unwrap();
    let [entry] = done.entries.as_slice() else { panic!("{done:?}") };
    assert!(entry.revives() && entry.restates());
    assert_eq!((done.revision, done.unchanged), (Revision(8), 4));
    let weight = carry_out(&fake(), wanted(&SAME.replace("unix:/s", "unix:/s weight=3"))).unwrap();
    assert!(!weight.entries[0].restates(), "who asked for a weight did not ask for a state");
}

#[test]
fn of_servers_with_one_address_one_stays() {
    let mut twice = fake();
    twice.peers = vec![
        peer(0, Group::Primary, 0, "a:81", "127.0.0.1:81"),
        peer(1, Group::Primary, 1, "127.0.0.1:81", "127.0.0.1:81"),
        peer(2, Group::Primary, 2, "127.0.0.1:81", "127.0.0.1:81"),
    ];
    assert_eq!(outcome(&twice, "server 127.0.0.1:81;").as_deref(), Ok("-0 -2 =1"));
    assert_eq!(outcome(&twice, "server 127.0.0.1:81; server a:81;").as_deref(), Ok("-2 =2"));
    assert_eq!(outcome(&twice, "server a:81;").as_deref(), Ok("-1 -2 =1"));
}

#[test]
fn what_nginx_resolves_is_left_alone() {
    let mut named = fake();
    named.peers[0].managed = true;
    named.peers[1].managed = true;
    let rest = "server unix:/s;";
    assert_eq!(outcome(&named, rest).as_deref(), Ok("-2 -4 =1"));
    for line in ["server host:81;", "server 127.0.0.1:81;"] {
        let refused = outcome(&named, &format!("{rest}\n{line}")).unwrap_err();
        assert_eq!(refused, "line 2: server is managed by DNS");
    }
}

#[test]
fn nothing_is_changed_where_nothing_differs() {
    assert_eq!(carry_out(&fake(), wanted(SAME)).unwrap().revision, Revision(7));
    let dry = ReplaceCommand { is_dry: true, ..wanted("server 10.0.0.1;") };
    let done = carry_out(&fake(), dry).unwrap();
    assert_eq!((done.revision, done.ids.len(), done.added.len(), done.removed.len()), (Revision(7), 0, 1, 5));
    let done = carry_out(&fake(), wanted("server 10.0.0.1;")).unwrap();
    assert_eq!((done.revision, done.ids.len()), (Revision(8), 1));
}

#[test]
fn the_rules_of_single_changes_hold() {
    let force = |text: &str| ReplaceCommand { force: true, ..wanted(text) };
    assert_eq!(carry_out(&fake(), force("")).unwrap().removed.len(), 5);

    let four = Fake { guard: Some(Guard::Servers(4)), ..fake() };
    assert_eq!(
        outcome(&four, "server 10.0.0.1; server 10.0.0.2; server unix:/s; server [::1];").as_deref(),
        Ok("+10.0.0.1 +10.0.0.2 -0 -1 -4 =2")
    );
    let three = "server 10.0.0.1; server 10.0.0.2 down; server unix:/s; server [::1];";
    assert_eq!(carry_out(&four, wanted(three)).unwrap_err(), OpError::Guarded { left: 3, min: 4 });
    assert!(carry_out(&four, force(three)).is_ok());

    let hash = Fake { backups: false, method: Method::HashConsistent, ..fake() };
    let backup = "server unix:/s;\nserver 10.0.0.1 backup;";
    assert_eq!(
        outcome(&hash, backup).unwrap_err(),
        "line 2: balancing method does not support parameter \"backup\""
    );
    let heavy = |weight| format!("server unix:/s weight={weight};");
    assert!(carry_out(&hash, wanted(&heavy(CONSISTENT_WEIGHT_MAX))).is_ok());
    let most = CONSISTENT_WEIGHT_MAX;
    assert_eq!(
        carry_out(&hash, wanted(&heavy(most + 1))).unwrap_err(),
        OpError::WeightTooLarge { total: most + 1, max: most }
    );
    let mut two = Fake { backups: false, method: Method::HashConsistent, ..fake() };
    two.peers = vec![peer(0, Group::Primary, 0, "unix:/s", "unix:/s"), two.peers.remove(0)];
    two.peers[0].terms.params.weight = most;
    let same = format!("server unix:/s down weight={most}; server host:81;");
    assert!(carry_out(&two, wanted(&same)).is_ok(), "the configuration may have more");
    let long = ReplaceCommand { note: Some("n".repeat(NOTE_MAX + 1)), ..wanted(SAME) };
    assert!(matches!(carry_out(&fake(), long), Err(OpError::NoteTooLong { .. })));
}

#[test]
fn it_is_planned_again_when_others_were_faster_but_not_for_ever() {
    let busy = |moved| Fake { moved: Cell::new(moved), ..fake() };
    let list = || wanted("server 10.0.0.1;");
    assert_eq!(carry_out(&busy(ATTEMPTS - 1), list()).unwrap().revision, Revision(8));
    assert_eq!(carry_out(&busy(ATTEMPTS), list()).err(), Some(OpError::Busy));
}

#[test]
fn upstreams_that_are_not_there_or_there_twice() {
    let mut two = wanted(SAME);
    two.lists.push(List { place: ListPlace::line(9), ..two.lists[0].clone() });
    assert_eq!(carry_out(&fake(), two).unwrap_err().to_string(), "line 9: upstream \"u\" is also in line 1");
    let mut other = wanted(SAME);
    other.lists[0].upstream = Some("v".into());
    assert_eq!(carry_out(&fake(), other).unwrap_err(), OpError::UpstreamNotFound("v".into()));
}

/// A server, as the model knows it.
type Known = (String, Group, Params, Admin);

/// Some different servers.
fn random_servers(random: &mut Random) -> Vec<Known> {
    let mut servers: Vec<Known> = Vec::new();
    for _ in 0..random.below(300) {
        let name = format!("10.0.{}.{}:80", random.below(2), random.below(200));
        if servers.iter().all(|(other, ..)| *other != name) {
            let group = if random.below(4) == 0 { Group::Backup } else { Group::Primary };
            let params = Params { weight: 1 + random.below(2) as u64, ..Params::default() };
            let admin = [Admin::Up, Admin::Up, Admin::Down, Admin::Drain][random.below(4)];
            servers.push((name, group, params, admin));
        }
    }
    servers
}

#[test]
fn random_lists() {
    let mut random = Random::new(42);
    for _ in 0..60 {
        let before = random_servers(&mut random);
        // Most of them are there in both.
        let mut after = random_servers(&mut random);
        for server in &before {
            if random.below(3) > 0 && after.iter().all(|(other, ..)| *other != server.0) {
                after.push(server.clone());
            }
        }
        let mut listed = before.clone();
        listed.sort_by_key(|server| server.1);
        let mut next = [0, 0];
        let peers: Vec<Peer> = (0..)
            .zip(&listed)
            .map(|(id, (name, group, params, admin))| {
                let next = &mut next[usize::from(group.is_backup())];
                *next += 1;
                Peer {
                    terms: Terms { admin: *admin, params: *params },
                    ..peer(id, *group, *next - 1, name, name)
                }
            })
            .collect();
        let fake = Fake { peers, ..fake() };
        let text: String = after
            .iter()
            .map(|(name, group, params, admin)| {
                let word = match admin {
                    Admin::Up => "",
                    Admin::Down => " down",
                    Admin::Drain => " drain",
                };
                let backup = if group.is_backup() { " backup" } else { "" };
                format!("server {name} weight={}{backup}{word};\n", params.weight)
            })
            .collect();
        let done = carry_out(&fake, ReplaceCommand { force: true, ..wanted(&text) }).unwrap();

        // The model: each server of one side, sought among all of the other.
        let is_in = |server: &&Known, list: &[Known]| {
            list.iter().any(|(name, group, ..)| (name, group) == (&server.0, &server.1))
        };
        let added: Vec<_> = after.iter().filter(|server| !is_in(server, &before)).collect();
        let found: Vec<Known> = done.added.iter().map(known).collect();
        assert_eq!(found.iter().collect::<Vec<_>>(), added);
        let removed: Vec<_> = listed.iter().filter(|server| !is_in(server, &after)).map(|it| &it.0).collect();
        assert_eq!(done.removed.iter().map(|it| &it.server.address).collect::<Vec<_>>(), removed);
        let kept = listed.iter().filter(|server| is_in(server, &after));
        let (same, other): (Vec<&Known>, Vec<&Known>) = kept.partition(|server| after.contains(server));
        assert_eq!(done.unchanged, same.len());
        assert_eq!(
            done.entries.iter().map(|it| &it.server.text).collect::<Vec<_>>(),
            other.iter().map(|it| &it.0).collect::<Vec<_>>()
        );
        for entry in &done.entries {
            let wanted = after.iter().find(|(name, ..)| *name == entry.server.text).unwrap();
            assert_eq!((entry.to.params, entry.to.admin), (wanted.2, wanted.3));
        }
    }
}

/// A server that is added, as the model knows it.
fn known(server: &Server) -> Known {
    (server.text.clone(), server.group, server.terms.params, server.terms.admin)
}
