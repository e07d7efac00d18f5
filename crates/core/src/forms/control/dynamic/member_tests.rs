//! Servers that come, go and move, in both dialects.

use super::super::super::fake::{self, Fake, fake};
use super::super::super::settings::Settings;
use super::super::answer;
use super::*;
use crate::ops::Guard;

/// The answer to a `GET`.
fn ask(args: &str, upstreams: &Fake, dialect: Dialect) -> Answer {
    answer(&Call::get(args), Ok(&[]), Some(upstreams), &Settings { dialect, ..Settings::default() })
}

/// Status and body of the reply in a location with `upstream_control`.
fn get(args: &str, upstreams: &Fake) -> (u16, String) {
    let response = ask(args, upstreams, Dialect::Any).response;
    (response.status, crate::forms::fake::said(&response))
}

/// The same with `upstream_conf`.
fn conf(args: &str, upstreams: &Fake) -> (u16, String) {
    let response = ask(args, upstreams, Dialect::UpstreamConf).response;
    (response.status, crate::forms::fake::said(&response))
}

/// `u` with one server.
fn one() -> Fake {
    Fake::new(vec![fake::upstream("u", vec![fake::peer(0, "127.0.0.1:81")])])
}

/// `u` with so many servers, of which all must be left.
fn guarded(servers: usize) -> Fake {
    let peers = (0..servers).map(|at| fake::peer(at, &format!("127.0.0.1:{}", 81 + at))).collect();
    let mut upstreams = Fake::new(vec![fake::upstream("u", peers)]);
    upstreams.guard = Some(Guard::Percent(100));
    upstreams
}

#[test]
fn an_added_server_is_the_last_of_its_list() {
    let upstreams = one();
    let first = "server 127.0.0.1:81 addr=127.0.0.1:81;\n";
    let second = "server 127.0.0.1:82 addr=127.0.0.1:82;\n";
    let backup = "server [::1] addr=[::1]:80 backup;\n";
    assert_eq!(get("upstream=u&add=&server=[::1]&backup=", &upstreams), (200, format!("{first}{backup}")));
    assert_eq!(
        get("upstream=u&add=&server=127.0.0.1:82", &upstreams),
        (200, format!("{first}{second}{backup}"))
    );
    let full = "upstream=u&add=&server=127.0.0.1:83&weight=2&max_conns=3&max_fails=4&fail_timeout=5&drain=";
    let (status, body) = get(full, &upstreams);
    assert_eq!(status, 200);
    let line = "server 127.0.0.1:83 addr=127.0.0.1:83 weight=2 max_fails=4 fail_timeout=5 max_conns=3 conns=0 \
                draining;\n";
    assert!(body.contains(line), "{body}");
}

#[test]
fn a_removed_server_is_gone() {
    for chosen in ["server=127.0.0.1:8082", "peer=1", "peer=127.0.0.1:8082"] {
        let (status, body) = get(&format!("upstream=backend&remove=&{chosen}"), &fake());
        assert_eq!(status, 200, "{chosen}");
        let which = if chosen == "peer=1" { "# peer=1 is server 127.0.0.1:8082 id=1\n" } else { "" };
        assert_eq!(
            body,
            "server 127.0.0.1:8081 addr=127.0.0.1:8081;\n\
             server app.example.com addr=127.0.0.1:8083;\n\
             server 127.0.0.1:8084 addr=127.0.0.1:8084 backup;\n"
                .to_owned()
                + which
        );
    }
    let numbered = "server 127.0.0.1:8081; # id=0\n\
                    server 127.0.0.1:8083; # id=2\n\
                    server 127.0.0.1:8084 backup; # id=3\n";
    assert_eq!(get("upstream=backend&remove=&id=1", &fake()), (200, numbered.to_owned()));
    assert_eq!(conf("remove=&upstream=backend&id=1", &fake()), (200, numbered.to_owned()));
}

#[test]
fn a_brief_reply_has_no_other_servers() {
    let upstreams = fake();
    let added = "server 127.0.0.9:80 addr=127.0.0.9:80;\n".to_owned();
    assert_eq!(get("upstream=backend&add=&server=127.0.0.9:80&brief=", &upstreams), (200, added));
    let changed = "server 127.0.0.9:80 addr=127.0.0.9:80 weight=1 max_fails=1 fail_timeout=10 max_conns=0 \
                   conns=0 down;\n";
    assert_eq!(
        get("upstream=backend&down=&server=127.0.0.9:80&brief=", &upstreams),
        (200, changed.to_owned())
    );
    assert_eq!(
        get("upstream=backend&remove=&server=127.0.0.9:80&brief=", &upstreams),
        (200, "# 4 servers left\n".to_owned())
    );
    let (status, body) = get("upstream=backend&remove=&id=1&brief=&format=json", &upstreams);
    assert_eq!(status, 200);
    assert!(body.starts_with(r#"{"upstream":"backend","revision":7,"removed":{"id":1,"#), "{body}");
    assert!(body.ends_with(r#""active":0},"left":3}"#), "{body}");
    assert_eq!(
        get("upstream=u&remove=&server=127.0.0.1:81&brief=", &one()),
        (200, "# no servers left\n".to_owned())
    );
}

#[test]
fn the_last_server_leaves_a_word() {
    let left = (200, "# no servers left\n".to_owned());
    let upstreams = one();
    assert_eq!(get("upstream=u&remove=&server=127.0.0.1:81", &upstreams), left);
    assert_eq!(get("upstream=u", &upstreams), (200, String::new()));
    let line = "server 127.0.0.1:82 addr=127.0.0.1:82;\n";
    assert_eq!(get("upstream=u&add=&server=127.0.0.1:82", &upstreams), (200, line.to_owned()));
    assert_eq!(conf("upstream=u&remove=&id=0", &one()), left);
    assert_eq!(
        get("upstream=u&remove=&id=0&format=json", &one()),
        (
            200,
            r#"{"upstream":"u","revision":4,"removed":{"id":0,"server":"127.0.0.1:81","#.to_owned()
                + r#""name":"127.0.0.1:81","active":0},"left":0,"servers":[]}"#
        )
    );
}

#[test]
fn what_stands_for_no_server_is_none() {
    for text in ["0.0.0.0:1", "[::]:1"] {
        let upstreams = Fake::new(vec![fake::upstream("u", vec![fake::peer(0, text)])]);
        assert_eq!(get("upstream=u", &upstreams), (200, String::new()));
        for args in ["peer=0&down=", "id=0&weight=2", &format!("server={text}&down=")] {
            assert_eq!(get(&format!("upstream=u&{args}"), &upstreams).0, 400, "{args}");
        }
        assert_eq!(get("upstream=u&remove=&peer=0", &upstreams).0, 400);
        let added = ask("upstream=u&add=&server=10.0.0.1", &upstreams, Dialect::Any);
        assert_eq!(added.log.len(), 1, "{:?}", added.log);
        let line = "server 10.0.0.1 addr=10.0.0.1:80;\n";
        assert_eq!(fake::said(&added.response), line);
        assert_eq!(get("upstream=u", &upstreams), (200, line.to_owned()), "it is gone");
    }
    // With another port, or beside others, it is a server.
    let beside = fake::upstream("u", vec![fake::peer(0, "0.0.0.0:1"), fake::peer(1, "10.0.0.1:80")]);
    let other = fake::upstream("u", vec![fake::peer(0, "0.0.0.0:80")]);
    for (snapshot, servers) in [(beside, 2), (other, 1)] {
        let (_, lines) = get("upstream=u", &Fake::new(vec![snapshot]));
        assert_eq!(lines.lines().count(), servers, "{lines}");
    }
}

#[test]
fn what_is_so_already_has_no_body() {
    for args in [
        "add=&server=127.0.0.1:8081",
        "add=&server=127.0.0.1:8083",
        "add=&server=127.0.0.1:8084&backup=",
        "remove=&server=127.0.0.1:9",
        "remove=&id=9",
    ] {
        assert_eq!(get(&format!("upstream=backend&{args}"), &fake()), (304, String::new()), "{args}");
    }
    let log = ask("upstream=backend&remove=&id=9", &fake(), Dialect::Any).log;
    let line = "upstream control: refused with 304: server or peer is not found: \"9\"".to_owned();
    assert_eq!(log, [(Level::Info, line)]);
    // A reply with that status has no body, and so no JSON.
    for (args, why) in [
        ("add=&server=127.0.0.1:8081", r#"server \"127.0.0.1:8081\" exists"#),
        ("remove=&server=nobody", r#"server or peer is not found: \"nobody\""#),
        ("remove=&server=127.0.0.1", r#"server or peer is not found: \"127.0.0.1\", did you mean "#),
    ] {
        let (status, body) = get(&format!("upstream=backend&{args}&format=json"), &fake());
        let start = format!(r#"{{"upstream":"backend","revision":3,"unchanged":"{why}"#);
        assert!(status == 200 && body.starts_with(&start), "{body}");
    }
}

#[test]
fn refusals() {
    let mut upstreams = fake::upstream("hash", vec![fake::peer(0, "127.0.0.1:81")]);
    upstreams.method = Some(crate::model::snapshot::Method::IpHash);
    let mut named = fake::upstream("named", vec![fake::peer(0, "app"), fake::peer(1, "app")]);
    let dns = fake::upstream("dns", vec![Peer { managed: true, ..fake::peer(0, "app") }]);
    named.peers[1].name = "10.0.0.2:80".into();
    let upstreams = Fake::new(vec![
        upstreams,
        named,
        dns,
        fake::upstream("u", vec![fake::peer(0, "10.0.0.1:80"), fake::backup(1, 0, "10.0.0.2:80")]),
    ]);
    let other = "can't change server type (primary<->backup)";
    let domain = "host name \"app\" where an address is needed";
    let backup = "balancing method does not support parameter \"backup\"";
    let table = [
        ("upstream=u&add=&server=10.0.0.1:80&backup=", 412, other, "OtherGroup"),
        ("upstream=u&add=&server=10.0.0.2:80", 412, other, "OtherGroup"),
        ("upstream=u&add=&server=app", 400, domain, "BadArgument"),
        ("upstream=u&add=&server=::1", 400, "invalid address", "BadArgument"),
        ("upstream=hash&add=&server=10.0.0.9&backup=", 400, backup, "BadValue"),
        (
            "upstream=named&remove=&server=app",
            409,
            "several servers match, choose one by id: 0, 1",
            "Ambiguous",
        ),
        ("upstream=dns&remove=&server=app", 409, "server is managed by DNS", "ManagedByDns"),
        ("upstream=dns&id=0&server=10.0.0.9", 409, "server is managed by DNS", "ManagedByDns"),
        ("upstream=u&remove=&peer=1", 400, "bad peer id: 1", "ServerNotFound"),
        ("upstream=u&remove=&server=http://10.0.0.1:80/", 400, "invalid address \"http:", "BadArgument"),
        ("upstream=nope&remove=&peer=1", 404, "upstream is not found", "UpstreamNotFound"),
    ];
    for (args, status, text, code) in table {
        let (found, body) = get(args, &upstreams);
        assert!(found == status && body.starts_with(text), "{args}: {found} {body}");
        let (found, body) = get(&format!("{args}&format=json"), &upstreams);
        assert!(found == status && body.contains(&format!("\"code\":\"{code}\"")), "{args}: {found} {body}");
    }
}

#[test]
fn a_full_zone_is_named_with_what_was_needed() {
    let mut full = fake();
    full.refuse = Some(OpError::ZoneFull { zone: "z".to_owned(), needed: 512 });
    let refused = ask("upstream=backend&add=&server=127.0.0.9", &full, Dialect::Any);
    assert_eq!(refused.response.status, 500);
    let text = "no memory left in zone \"z\", 512 bytes are needed: raise the size of \"zone\"";
    assert_eq!(fake::said(&refused.response), text);
    assert_eq!(refused.log[0].0, Level::Error);
}

#[test]
fn a_guard_is_set_aside_by_force() {
    for args in ["remove=&peer=0", "peer=0&down=", "peer=0&drain="] {
        let args = format!("upstream=u&{args}");
        let text = "guard: 1 usable server would be left, at least 2 must be, use \"force=\"";
        assert_eq!(get(&args, &guarded(2)), (409, text.to_owned()), "{args}");
        assert_eq!(get(&format!("{args}&force="), &guarded(2)).0, 200, "{args}");
    }
}

#[test]
fn json() {
    let (status, body) = get("upstream=u&add=&server=127.0.0.1:82&format=json", &one());
    assert_eq!(status, 200);
    let start = r#"{"upstream":"u","revision":4,"server":{"id":1,"server":"127.0.0.1:82","name":"#;
    assert!(body.starts_with(start), "{body}");
    let (status, body) = get("upstream=backend&remove=&peer=1&format=json", &fake());
    assert_eq!(status, 200);
    let start = r#"{"upstream":"backend","revision":4,"removed":{"id":1,"server":"127.0.0.1:8082","#
        .to_owned()
        + r#""name":"127.0.0.1:8082","active":0},"left":3,"servers":[{"id":0,"#;
    assert!(body.starts_with(&start), "{body}");
}

#[test]
fn upstream_conf() {
    let upstreams = fake();
    let list = "server 127.0.0.1:8081; # id=0\nserver 127.0.0.1:8082; # id=1\n\
                server 127.0.0.1:8083; # id=2\nserver 127.0.0.1:8084 backup; # id=3\n";
    let table = [
        ("upstream=backend", list),
        ("upstream=backend&id=2", "server 127.0.0.1:8083; # id=2\n"),
        ("add=&upstream=backend&server=127.0.0.1:8085", "server 127.0.0.1:8085; # id=4\n"),
        (
            "add=&upstream=backend&server=127.0.0.1:8086&weight=2&backup=&down=&slow_start=0s&route=",
            "server 127.0.0.1:8086 weight=2 backup down; # id=5\n",
        ),
        ("upstream=backend&id=1&drain=1", "server 127.0.0.1:8082; # id=1 draining\n"),
        ("upstream=backend&id=1&up=", "server 127.0.0.1:8082; # id=1\n"),
        ("upstream=backend&id=1&down=", "server 127.0.0.1:8082 down; # id=1\n"),
        ("upstream=backend&id=1&server=127.0.0.2&up=&weight=3", "server 127.0.0.2:8082 weight=3; # id=1\n"),
        ("upstream=backend&id=1&server=127.0.0.2:9", "server 127.0.0.2:9 weight=3; # id=1\n"),
    ];
    for (args, body) in table {
        assert_eq!(conf(args, &upstreams), (200, body.to_owned()), "{args}");
    }
    let table = [
        ("upstream=nope", 404, "upstream is not found: \"nope\""),
        ("upstream=*", 404, "upstream is not found: \"*\""),
        ("upstream=backend&id=9", 400, "server or peer is not found: \"9\""),
        ("upstream=backend&remove=&id=9", 400, "server or peer is not found: \"9\""),
        ("upstream=backend&id=9&server=127.0.0.9", 400, "server or peer is not found: \"9\""),
        ("upstream=backend&add=&server=127.0.0.1:8081", 409, "server \"127.0.0.1:8081\" exists"),
        ("upstream=backend&id=1&server=app", 400, "host name \"app\" where an address is needed"),
        ("upstream=backend&stream=", 501, "stream: not yet supported"),
        ("stream=backend&upstream=backend&peer=0", 400, "unknown argument \"peer\""),
    ];
    for (args, status, text) in table {
        assert_eq!(conf(args, &upstreams), (status, text.to_owned()), "{args}");
    }
}

#[test]
fn upstream_conf_is_found_by_its_error() {
    for args in ["", "upstream=", "stream=backend", "add=&server=127.0.0.1"] {
        let refused = ask(args, &fake(), Dialect::UpstreamConf);
        assert_eq!(refused.response.status, 400, "{args}");
        assert_eq!(fake::said(&refused.response), "missing \"upstream\" argument");
        assert_eq!(refused.log, [(Level::Error, "missing \"upstream\" argument".to_owned())]);
    }
}
