//! The rules, each in a table.

use std::cell::Cell;

use crate::model::address::{Address, AddressError};
use crate::model::id::{Group, Revision, ServerId};
use crate::model::params::Param;
use crate::model::server::Change;
use crate::model::snapshot::{Method, StaticReason};
use crate::model::state::Admin;

use super::access::{Lookup, Upstreams, named};
use super::command::{Action, Command, Selector};
use super::error::OpError;
use super::execute::{ATTEMPTS, execute, plan};
use super::fake::{Fake, act, add, admin, command, fake, peer, readdress, weight};
use super::guard::Guard;
use super::plan::NOTE_MAX;
use super::rules::CONSISTENT_WEIGHT_MAX;

#[test]
fn selectors_choose_by_position_id_text_and_any_form_of_the_address() {
    let text = |text: &str| Selector::Server(text.into());
    let host = |text: &str| Selector::Host(text.into());
    let table = [
        (host("host"), vec![0, 1]),
        (host("127.0.0.1"), vec![0, 4]),
        (host("127.0.0.1:82"), vec![4]),
        (Selector::Position(1), vec![1]),
        (Selector::Position(4), vec![]),
        (Selector::Id(ServerId(4)), vec![4]),
        (text("host:81"), vec![0, 1]),
        (text("HOST:81"), vec![0, 1]),
        (text("UNIX:/s"), vec![3]),
        (text("unix:/S"), vec![]),
        (text("127.0.0.2:81"), vec![1]),
        (text("[::1]"), vec![2]),
        (text("[::1]:80"), vec![2]),
        (text("[0:0:0:0:0:0:0:1]:80"), vec![2]),
        (text("unix:/s"), vec![3]),
        (text("127.0.0.1:82"), vec![4]),
        (text("127.0.0.1"), vec![]),
        (text("host"), vec![]),
        (text(""), vec![]),
    ];
    for (selector, wanted) in table {
        let found: Vec<_> =
            (&fake()).select(&selector).unwrap().iter().map(|peer| peer.id.unwrap().0).collect();
        assert_eq!(found, wanted, "{selector:?}");
    }
}

#[test]
fn an_upstream_goes_by_its_name_or_by_a_zone_of_its_own() {
    let all = [("Back", Some("one")), ("app", Some("two")), ("two", None), ("web", Some("one"))];
    let table: [(&str, &[usize]); 7] = [
        ("back", &[0]),
        ("BACK", &[0]),
        ("app", &[1]),
        // The name of an upstream goes before that of a zone.
        ("two", &[2]),
        ("one", &[0, 3]),
        ("ONE", &[]),
        ("", &[]),
    ];
    for (name, wanted) in table {
        let found: Vec<_> = named(name, all.iter().copied()).iter().map(|index| index.0).collect();
        assert_eq!(found, wanted, "{name}");
    }
}

#[test]
fn a_change_names_what_differs_and_nothing_else() {
    let change = Change { admin: Some(Admin::Down), params: vec![(Param::Weight, 5), (Param::MaxFails, 1)] };
    let plan = plan(&&fake(), &command(vec![Selector::Id(ServerId(2))], change)).unwrap();
    let [entry] = plan.entries.as_slice() else { panic!("{plan:?}") };
    let differences: Vec<_> = entry.differences().into_iter().map(|d| (d.what, d.from, d.to)).collect();
    let wanted = [("state", "up".into(), "down".into()), ("weight", "1".into(), "5".into())];
    assert_eq!(differences, wanted);
    assert_eq!(
        (plan.revision, plan.membership, entry.revives(), entry.restates()),
        (Revision(7), 3, false, true)
    );
}

#[test]
fn a_server_chosen_twice_changes_once() {
    let servers = vec![Selector::Position(0), Selector::Server("host:81".into())];
    let plan = plan(&&fake(), &command(servers, admin(Admin::Down))).unwrap();
    assert_eq!(plan.entries.iter().map(|entry| entry.id.0).collect::<Vec<_>>(), [0, 1]);
}

#[test]
fn what_is_so_already_is_no_change_unless_a_note_says_why() {
    let mut up = command(vec![Selector::Position(0)], admin(Admin::Up));
    let outcome = execute(&fake(), &up).unwrap();
    assert_eq!(outcome.revision, Revision(7));
    assert!(outcome.entries[0].revives() && !outcome.entries[0].is_change());
    up.note = Some("checked".into());
    assert_eq!(execute(&fake(), &up).unwrap().revision, Revision(8));
}

#[test]
fn one_bad_word_refuses_the_whole_command() {
    let servers = vec![Selector::Position(0), Selector::Server("nobody".into())];
    let refused = execute(&fake(), &command(servers, admin(Admin::Down)));
    assert_eq!(refused.err(), Some(OpError::ServerNotFound("nobody".into())));
    let refused = execute(&fake(), &command(vec![Selector::Position(9)], admin(Admin::Down)));
    assert_eq!(refused.err(), Some(OpError::BadPosition(9)));
    assert_eq!(fake().find("v"), Err(OpError::UpstreamNotFound("v".into())));
}

#[test]
fn consistent_hash_has_a_largest_sum_of_weights() {
    let hash = Fake { method: Method::HashConsistent, ..fake() };
    // Four other servers have a weight of 1.
    let most = CONSISTENT_WEIGHT_MAX - 4;
    assert!(execute(&hash, &command(vec![Selector::Position(0)], weight(most))).is_ok());
    let refused = execute(&hash, &command(vec![Selector::Position(0)], weight(most + 1)));
    let wanted = OpError::WeightTooLarge { total: CONSISTENT_WEIGHT_MAX + 1, max: CONSISTENT_WEIGHT_MAX };
    assert_eq!(refused.err(), Some(wanted));
    assert!(execute(&fake(), &command(vec![Selector::Position(0)], weight(most + 1))).is_ok());
    let mut heavy = hash;
    heavy.peers[1].terms.params.weight = CONSISTENT_WEIGHT_MAX;
    let down = command(vec![Selector::Position(1)], admin(Admin::Down));
    assert!(execute(&heavy, &down).is_ok(), "the configuration may have more");
}

#[test]
fn a_command_is_planned_again_when_others_were_faster_but_not_for_ever() {
    let busy = |moved| Fake { moved: Cell::new(moved), ..fake() };
    let down = command(vec![Selector::Position(0)], admin(Admin::Down));
    assert_eq!(execute(&busy(ATTEMPTS - 1), &down).unwrap().revision, Revision(8));
    assert_eq!(execute(&busy(ATTEMPTS), &down).err(), Some(OpError::Busy));
}

#[test]
fn a_note_is_kept_whole_or_refused() {
    let mut down = command(vec![Selector::Position(0)], admin(Admin::Down));
    down.note = Some("n".repeat(NOTE_MAX));
    assert!(execute(&fake(), &down).is_ok());
    down.note = Some("n".repeat(NOTE_MAX + 1));
    assert_eq!(
        execute(&fake(), &down).err(),
        Some(OpError::NoteTooLong { len: NOTE_MAX + 1, max: NOTE_MAX })
    );
}

#[test]
fn errors_say_the_words_of_the_contracts() {
    assert_eq!(
        OpError::Static(StaticReason::NoZone { kilobytes: 64 }).to_string(),
        "only for upstream with 'zone'"
    );
    assert_eq!(OpError::OtherGroup.to_string(), "can't change server type (primary<->backup)");
    let ids = vec![ServerId(1), ServerId(4)];
    assert_eq!(OpError::Ambiguous(ids).to_string(), "several servers match, choose one by id: 1, 4");
    assert_eq!(
        OpError::Guarded { left: 1, min: 2 }.to_string(),
        "guard: 1 usable server would be left, at least 2 must be, use \"force=\""
    );
    assert_eq!(OpError::ServerNotFound("x".into()).to_string(), "server or peer is not found: \"x\"");
    assert_eq!(OpError::UpstreamNotFound("x".into()).to_string(), "upstream is not found: \"x\"");
}

/// Why a command is refused; none if it is done.
fn refusal(fake: &Fake, command: &Command) -> Option<OpError> {
    execute(fake, command).err()
}

#[test]
fn what_is_added_must_not_be_there_in_either_list() {
    let (primary, backup) = (Group::Primary, Group::Backup);
    let exists = |address: &str| Some(OpError::Exists(address.into()));
    let table = [
        ("127.0.0.9", primary, None),
        ("127.0.0.9", backup, None),
        ("127.0.0.1:81", primary, exists("127.0.0.1:81")),
        ("[0:0::1]:80", primary, exists("[::1]:80")),
        ("[::1]", primary, exists("[::1]:80")),
        ("[::1]:81", primary, None),
        ("unix:/s", primary, exists("unix:/s")),
        ("127.0.0.1:82", backup, exists("127.0.0.1:82")),
        ("127.0.0.1:82", primary, Some(OpError::OtherGroup)),
        ("127.0.0.1:81", backup, Some(OpError::OtherGroup)),
    ];
    for (server, group, wanted) in table {
        assert_eq!(refusal(&fake(), &add(server, group, 1)), wanted, "{server} {group:?}");
    }
    let outcome = execute(&fake(), &add("127.0.0.9", Group::Primary, 3)).unwrap();
    let [(id, added)] = outcome.added.as_slice() else { panic!("{outcome:?}") };
    assert_eq!((*id, added.text.as_str(), added.terms.params.weight), (ServerId(5), "127.0.0.9", 3));
    assert_eq!((outcome.revision, outcome.entries.len(), outcome.removed.len()), (Revision(8), 0, 0));
}

#[test]
fn a_backup_needs_a_list_of_backups() {
    let ip_hash = Fake { backups: false, method: Method::IpHash, ..fake() };
    assert_eq!(refusal(&ip_hash, &add("127.0.0.9", Group::Backup, 1)), Some(OpError::NoBackup));
    assert_eq!(refusal(&ip_hash, &add("127.0.0.9", Group::Primary, 1)), None);
}

#[test]
fn one_server_leaves_at_a_time() {
    let text = |text: &str| Selector::Server(text.into());
    let table = [
        (vec![text("unix:/s")], None),
        (vec![Selector::Position(0)], None),
        (vec![Selector::Id(ServerId(4))], None),
        (vec![text("host:81")], Some(OpError::Ambiguous(vec![ServerId(0), ServerId(1)]))),
        (vec![text("unix:/s"), text("[::1]")], Some(OpError::Ambiguous(vec![ServerId(3), ServerId(2)]))),
        (vec![text("nobody")], Some(OpError::ServerNotFound("nobody".into()))),
        (vec![Selector::Position(4)], Some(OpError::BadPosition(4))),
        (vec![], Some(OpError::ServerNotFound(String::new()))),
    ];
    for (servers, wanted) in table {
        assert_eq!(refusal(&fake(), &act(servers.clone(), Action::Remove)), wanted, "{servers:?}");
    }
    let mut busy = fake();
    busy.peers[3].active = 2;
    let outcome = execute(&busy, &act(vec![text("unix:/s")], Action::Remove)).unwrap();
    let [removal] = outcome.removed.as_slice() else { panic!("{outcome:?}") };
    assert_eq!((removal.id, removal.active, removal.server.address.as_str()), (ServerId(3), 2, "unix:/s"));
}

#[test]
fn the_last_server_may_leave() {
    let last = Fake { peers: vec![peer(0, Group::Primary, 0, "a", "127.0.0.1:81")], ..fake() };
    assert_eq!(refusal(&last, &act(vec![Selector::Position(0)], Action::Remove)), None);
}

#[test]
fn what_a_name_resolves_to_stays_with_the_name() {
    let mut named = fake();
    named.peers[0].managed = true;
    named.peers[1].managed = true;
    for selector in [Selector::Position(0), Selector::Server("host:81".into())] {
        let remove = act(vec![selector.clone()], Action::Remove);
        assert_eq!(refusal(&named, &remove), Some(OpError::ManagedByDns));
        let moved = readdress(selector.clone(), "127.0.0.9");
        assert_eq!(refusal(&named, &moved), Some(OpError::ManagedByDns));
        assert_eq!(refusal(&named, &command(vec![selector], admin(Admin::Down))), None);
    }
}

#[test]
fn another_address_keeps_the_port_unless_it_has_one() {
    let to = |at: usize, address: &str| {
        let outcome = execute(&fake(), &readdress(Selector::Id(ServerId(at as u64)), address))?;
        Ok::<_, OpError>(outcome.entries[0].readdress.as_ref().map(ToString::to_string))
    };
    let table = [
        (0, "127.0.0.9", Some("127.0.0.9:81")),
        (0, "127.0.0.9:90", Some("127.0.0.9:90")),
        (0, "127.0.0.1", None),
        (0, "127.0.0.1:81", None),
        (2, "[::2]", Some("[::2]:80")),
        (2, "[0::1]:80", None),
        (3, "127.0.0.9", Some("127.0.0.9:80")),
        (0, "unix:/t", Some("unix:/t")),
    ];
    for (at, address, wanted) in table {
        assert_eq!(to(at, address), Ok(wanted.map(str::to_owned)), "{at} {address}");
    }
    assert_eq!(to(0, "127.0.0.2"), Err(OpError::Exists("127.0.0.2:81".into())));
    for junk in ["", "127.0.0.1:0", "host", "::1", "1.2.3.4 weight=2"] {
        let wanted = Address::parse(junk).unwrap_err();
        assert_eq!(to(0, junk), Err(OpError::BadAddress(wanted)), "{junk}");
    }
    assert_eq!(to(0, ""), Err(OpError::BadAddress(AddressError::Empty)));
    assert_eq!(to(9, "127.0.0.9"), Err(OpError::ServerNotFound("9".into())));
}

#[test]
fn another_address_and_other_parameters_at_once() {
    let change = Change { admin: Some(Admin::Drain), params: vec![(Param::Weight, 2)] };
    let action = Action::Readdress { address: "127.0.0.9".into(), change };
    let outcome = execute(&fake(), &act(vec![Selector::Position(0)], action)).unwrap();
    let differences: Vec<_> =
        outcome.entries[0].differences().into_iter().map(|d| (d.what, d.from, d.to)).collect();
    assert_eq!(
        differences,
        [
            ("state", "up".to_owned(), "draining".to_owned()),
            ("address", "127.0.0.1:81".to_owned(), "127.0.0.9:81".to_owned()),
            ("weight", "1".to_owned(), "2".to_owned()),
        ]
    );
    let same = execute(&fake(), &readdress(Selector::Position(0), "127.0.0.1")).unwrap();
    assert_eq!(same.revision, Revision(7), "it is there already");
}

#[test]
fn a_server_that_is_added_counts_in_the_sum_of_weights() {
    let hash = Fake { method: Method::HashConsistent, ..fake() };
    let most = CONSISTENT_WEIGHT_MAX - 5;
    assert_eq!(refusal(&hash, &add("127.0.0.9", Group::Primary, most)), None);
    let wanted = OpError::WeightTooLarge { total: CONSISTENT_WEIGHT_MAX + 1, max: CONSISTENT_WEIGHT_MAX };
    assert_eq!(refusal(&hash, &add("127.0.0.9", Group::Primary, most + 1)), Some(wanted));
}

#[test]
fn the_guard_counts_servers_that_are_up() {
    let down = |servers: &[usize], fake: &Fake| {
        let servers = servers.iter().copied().map(Selector::Position).collect();
        refusal(fake, &command(servers, admin(Admin::Down)))
    };
    let drain = |fake: &Fake| refusal(fake, &command(vec![Selector::Position(0)], admin(Admin::Drain)));
    let remove = |fake: &Fake| refusal(fake, &act(vec![Selector::Position(0)], Action::Remove));
    let guarded = |left, min| Some(OpError::Guarded { left, min });

    let four = Fake { guard: Some(Guard::Servers(4)), ..fake() };
    assert_eq!(down(&[0], &four), None);
    assert_eq!(down(&[0, 1], &four), guarded(3, 4));
    assert_eq!((drain(&four), remove(&four)), (None, None));

    let mut half = Fake { guard: Some(Guard::Percent(50)), ..fake() };
    assert_eq!(down(&[0, 1], &half), None);
    assert_eq!(down(&[0, 1, 2], &half), guarded(2, 3));
    half.peers[3].terms.admin = Admin::Down;
    half.peers[4].terms.admin = Admin::Drain;
    assert_eq!(down(&[0], &half), guarded(2, 3));
    assert_eq!((drain(&half), remove(&half)), (guarded(2, 3), guarded(2, 3)));
    assert_eq!(down(&[3], &half), None, "down already");
    assert_eq!(refusal(&half, &act(vec![Selector::Position(3)], Action::Remove)), None, "it was down");

    // What makes them no fewer is never refused, and force sets the guard aside.
    half.guard = Some(Guard::Percent(100));
    assert_eq!(refusal(&half, &command(vec![Selector::Position(3)], admin(Admin::Up))), None);
    assert_eq!(refusal(&half, &add("127.0.0.9", Group::Primary, 1)), None);
    assert_eq!(refusal(&half, &readdress(Selector::Position(0), "127.0.0.9")), None);
    let forced = Command { force: true, ..act(vec![Selector::Position(0)], Action::Remove) };
    assert_eq!(refusal(&half, &forced), None);
}
