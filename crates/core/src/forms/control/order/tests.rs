//! Which arguments ask for what, and which are refused.

use super::*;
use crate::model::address::Address;
use crate::model::params::{Param, Params};
use crate::model::server::Terms;
use crate::model::state::Admin;

/// The order for `upstream=u` and these arguments.
fn order(args: &str) -> Result<Order, Refusal> {
    let query = Query::parse(format!("upstream=u&{args}").as_bytes()).unwrap();
    Order::parse(&query, Dialect::Any)
}

/// The same for `upstream_conf`.
fn conf(args: &str) -> Result<Order, Refusal> {
    let query = Query::parse(format!("upstream=u&{args}").as_bytes()).unwrap();
    Order::parse(&query, Dialect::UpstreamConf)
}

/// A choice by the text of a server.
fn server(text: &str) -> Selector {
    Selector::Server(text.to_owned())
}

#[test]
fn choices() {
    let table = [
        ("", Choice::None),
        ("server=", Choice::None),
        ("peer=", Choice::None),
        ("server=&id=1", Choice::Id(ServerId(1))),
        ("server=a:1", Choice::One(server("a:1"))),
        ("server=12", Choice::One(server("12"))),
        ("servers=a", Choice::Several(vec![server("a")])),
        ("servers=a,b:2", Choice::Several(vec![server("a"), server("b:2")])),
        ("peer=1", Choice::One(Selector::Position(1))),
        ("peer=007", Choice::One(Selector::Position(7))),
        ("peer=127.0.0.1:80", Choice::One(server("127.0.0.1:80"))),
        ("peer=-1", Choice::One(server("-1"))),
        ("id=42", Choice::Id(ServerId(42))),
    ];
    for (args, wanted) in table {
        assert_eq!(order(args).unwrap().choice, wanted, "{args}");
    }
}

#[test]
fn changes() {
    let table = [
        ("server=a&down=", Some(Admin::Down), vec![]),
        ("server=a&up", Some(Admin::Up), vec![]),
        ("server=a&drain=1", Some(Admin::Drain), vec![]),
        ("server=a&fail_timeout=1m&weight=2", None, vec![(Param::Weight, 2), (Param::FailTimeout, 60)]),
        (
            "server=a&max_conns=0&max_fails=0&down",
            Some(Admin::Down),
            vec![(Param::MaxConns, 0), (Param::MaxFails, 0)],
        ),
    ];
    for (args, admin, params) in table {
        assert_eq!(order(args).unwrap().action, Some(Action::Set(Change { admin, params })), "{args}");
    }
    assert_eq!(order("server=a&verbose=").unwrap().action, None);
}

#[test]
fn notes_and_flags() {
    assert_eq!(order("server=a&down=&note=a+b").unwrap().note.as_deref(), Some("a b"));
    assert_eq!(order("server=a&down=&note=").unwrap().note, None);
    assert!(order("verbose=&backup=&ipv6=").unwrap().verbose);
    assert!(order("server=a&weight=1").unwrap().verbose && !order("server=a").unwrap().verbose);
    assert!(order("remove=&server=a&force").unwrap().force && !order("remove=&server=a").unwrap().force);
}

#[test]
fn refusals() {
    let table = [
        ("x=", 400, "unknown argument \"x\""),
        ("Server=a", 400, "unknown argument \"Server\""),
        ("add=&remove=", 400, "add and remove at once are not allowed"),
        ("add=", 400, "'server' argument required"),
        ("add=&server=", 400, "'server' argument required"),
        ("add=&server=app:80", 400, "host name \"app:80\" where an address is needed"),
        (
            "add=&server=http://10.0.0.1",
            400,
            "invalid address \"http://10.0.0.1\": a URL, where HOST:PORT is needed",
        ),
        ("add=&server=10.0.0", 400, "invalid address \"10.0.0\": not an ip address"),
        ("add=&server=10.0.0.1:0", 400, "invalid address \"10.0.0.1:0\": port must be between 1 and 65535"),
        (
            "add=&server=10.0.0.1&weight=0",
            400,
            "invalid weight \"0\": use drain or down to stop new requests",
        ),
        ("add=&server=10.0.0.1&id=1", 400, "add and id at once are not allowed"),
        ("add=&server=10.0.0.1&peer=1", 400, "add and peer at once are not allowed"),
        ("add=&servers=10.0.0.1", 400, "add and servers at once are not allowed"),
        ("remove=", 400, "'server' argument required"),
        ("remove=&server=", 400, "'server' argument required"),
        ("remove=&server=a&backup=", 400, "backup: only for a server that is added"),
        ("remove=&server=a&weight=1", 400, "remove and weight at once are not allowed"),
        ("remove=&server=a&down=", 400, "remove and down at once are not allowed"),
        ("remove=&servers=a,b", 400, "remove and servers at once are not allowed"),
        ("remove=&server=a&id=1", 400, "server and id at once are not allowed"),
        ("force=no&remove=&server=a", 400, "invalid value \"no\" in \"force\", leave it out"),
        ("slow_start=0", 400, "unknown argument \"slow_start\""),
        ("server=a&id=1&backup=", 400, "backup: only for a server that is added"),
        ("server=a&id=1&peer=0", 400, "peer and id at once are not allowed"),
        ("stream=", 501, "stream: not yet supported"),
        ("down=&up=&server=a", 400, "down and up at once are not allowed"),
        ("up=&down=&server=a", 400, "down and up at once are not allowed"),
        ("drain=&down=&server=a", 400, "down and drain at once are not allowed"),
        ("drain=&up=&server=a", 400, "up and drain at once are not allowed"),
        ("down=0&server=a", 400, "invalid value \"0\" in \"down\", use \"up=\""),
        ("note=x", 400, "note: nothing is to be changed"),
        ("server=a&note=", 400, "note: nothing is to be changed"),
        ("force=", 400, "force: nothing is to be changed"),
        ("id=1&brief=", 400, "brief: nothing is to be changed"),
        ("add=no&server=a", 400, "invalid value \"no\" in \"add\", leave it out"),
        ("down=", 400, "'server' argument required"),
        ("weight=1", 400, "'server' argument required"),
        ("server=&weight=1", 400, "'server' argument required"),
        ("weight=x&server=a", 400, "weight: not a number: \"x\""),
        ("weight=0&server=a", 400, "invalid weight \"0\": use drain or down to stop new requests"),
        ("peer=0&server=a", 400, "server and peer at once are not allowed"),
        ("servers=a&peer=0", 400, "servers and peer at once are not allowed"),
        ("servers=", 400, "invalid value \"\" in \"servers\""),
        ("servers=a,,b", 400, "invalid value \"a,,b\" in \"servers\""),
        ("servers=a,b,A", 400, "duplicate server \"A\" in \"servers\""),
        ("servers=a,b,a", 400, "duplicate server \"a\" in \"servers\""),
        ("id=", 400, "invalid value \"\" in \"id\""),
        ("id=a", 400, "invalid value \"a\" in \"id\""),
        ("id=%2B1", 400, "invalid value \"+1\" in \"id\""),
        ("id=99999999999999999999", 400, "invalid value \"99999999999999999999\" in \"id\""),
        ("peer=99999999999999999999", 400, "bad peer id: \"99999999999999999999\""),
        ("server=a&down=&backup=", 400, "backup: only for a server that is added"),
    ];
    for (args, status, text) in table {
        let refusal = order(args).unwrap_err();
        assert_eq!((refusal.kind.status(), refusal.text.as_str()), (status, text), "{args}");
    }
    for query in ["", "upstream=", "server=a&down="] {
        let refusal = Order::parse(&Query::parse(query.as_bytes()).unwrap(), Dialect::Any).unwrap_err();
        assert_eq!(refusal, Refusal::argument("upstream required"), "{query}");
    }
}

#[test]
fn servers_that_are_to_be() {
    let wanted = |args: &str| match order(&format!("add=&{args}")).unwrap() {
        Order { choice: Choice::None, action: Some(Action::Add(server)), .. } => server,
        other => panic!("{other:?}"),
    };
    let plain = wanted("server=10.0.0.1");
    assert_eq!((plain.text.as_str(), plain.address.to_string().as_str()), ("10.0.0.1", "10.0.0.1:80"));
    assert_eq!((plain.group, plain.terms), (Group::Primary, Terms::default()));
    let full = wanted("server=[::1]:81&backup=&weight=2&max_conns=3&max_fails=4&fail_timeout=1m&drain=");
    assert_eq!(full.address, Address::parse("[::1]:81").unwrap());
    let params = Params { weight: 2, max_conns: 3, max_fails: 4, fail_timeout: 60 };
    assert_eq!((full.group, full.terms), (Group::Backup, Terms { admin: Admin::Drain, params }));
    assert_eq!(wanted("server=unix:/s&peer=&down=").terms.admin, Admin::Down);
}

#[test]
fn servers_that_leave_or_move() {
    let nothing = Change::default();
    let down = Change { admin: Some(Admin::Down), params: vec![(Param::Weight, 2)] };
    let moved = |change: &Change| Action::Readdress { address: "a:1".to_owned(), change: change.clone() };
    let table = [
        ("remove=&server=a", Choice::One(server("a")), Action::Remove),
        ("remove=&peer=1", Choice::One(Selector::Position(1)), Action::Remove),
        ("remove=&id=1&server=", Choice::Id(ServerId(1)), Action::Remove),
        ("id=1&server=a:1", Choice::Id(ServerId(1)), moved(&nothing)),
        ("id=1&server=a:1&down=&weight=2", Choice::Id(ServerId(1)), moved(&down)),
    ];
    for (args, choice, action) in table {
        let found = order(args).unwrap();
        assert_eq!((found.choice, found.action), (choice, Some(action)), "{args}");
    }
}

#[test]
fn upstream_conf_knows_servers_by_their_ids() {
    for args in ["", "id=1", "id=1&slow_start=0&route=&service=", "remove=&id=1", "id=1&server=a&drain=1"] {
        assert!(conf(args).is_ok(), "{args}");
    }
    let table = [
        ("remove=", 400, "missing \"id\" argument"),
        ("remove=&server=a", 400, "missing \"id\" argument"),
        ("server=a", 400, "missing \"id\" argument"),
        ("server=a&down=", 400, "missing \"id\" argument"),
        ("weight=2", 400, "missing \"id\" argument"),
        ("verbose=", 400, "unknown argument \"verbose\""),
        ("peer=1", 400, "unknown argument \"peer\""),
        ("stream=", 501, "stream: not yet supported"),
        ("add=&server=10.0.0.1&service=http", 501, "service: not yet supported"),
        ("add=&server=10.0.0.1&route=a", 501, "route: not yet supported"),
        ("add=&server=10.0.0.1&slow_start=30s", 501, "slow_start: not yet supported"),
        ("add=&server=app", 400, "host name \"app\" where an address is needed"),
    ];
    for (args, status, text) in table {
        let refusal = conf(args).unwrap_err();
        assert_eq!((refusal.kind.status(), refusal.text.as_str()), (status, text), "{args}");
    }
}
