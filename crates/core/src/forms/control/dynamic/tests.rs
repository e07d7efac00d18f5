//! Listings and changes of servers that are there.

use super::super::super::fake::{self, Fake, fake};
use super::super::super::settings::Settings;
use super::super::answer;
use super::*;
use crate::model::log::Level;
use crate::model::state::Admin;

/// Status and body of the reply to a `GET`.
fn get(args: &str, upstreams: &Fake) -> (u16, String) {
    let response = answer(&Call::get(args), Ok(&[]), Some(upstreams), &Settings::default()).response;
    (response.status, crate::forms::fake::said(&response))
}

/// The plain listing of `backend`.
const PLAIN: &str = "server 127.0.0.1:8081 addr=127.0.0.1:8081;\n\
                     server 127.0.0.1:8082 addr=127.0.0.1:8082;\n\
                     server app.example.com addr=127.0.0.1:8083;\n\
                     server 127.0.0.1:8084 addr=127.0.0.1:8084 backup;\n";

/// The verbose one, with `{}` where the parameters of the second server are.
fn verbose(second: &str) -> String {
    let same = "weight=1 max_fails=1 fail_timeout=10 max_conns=0 conns=0";
    format!(
        "server 127.0.0.1:8081 addr=127.0.0.1:8081 {same};\n\
         server 127.0.0.1:8082 addr=127.0.0.1:8082 {second};\n\
         server app.example.com addr=127.0.0.1:8083 {same};\n\
         server 127.0.0.1:8084 addr=127.0.0.1:8084 {same} backup;\n"
    )
}

#[test]
fn listings() {
    let same = verbose("weight=1 max_fails=1 fail_timeout=10 max_conns=0 conns=0");
    for name in ["backend", "backend_zone"] {
        let upstream = format!("upstream={name}");
        assert_eq!(get(&upstream, &fake()), (200, PLAIN.to_owned()));
        assert_eq!(get(&format!("{upstream}&server=127.0.0.1:8082"), &fake()), (200, PLAIN.to_owned()));
        assert_eq!(get(&format!("{upstream}&verbose="), &fake()), (200, same.clone()));
    }
    assert_eq!(get("upstream=backend&id=1", &fake()), (200, "server 127.0.0.1:8082; # id=1\n".to_owned()));
    assert_eq!(get("upstream=fixed", &fake()), (200, "server 10.0.0.1:80 addr=10.0.0.1:80;\n".to_owned()));
}

#[test]
fn a_zone_that_several_upstreams_have_means_none_of_them() {
    let shared = || {
        let mut all = ["a", "b", "c"].map(|name| fake::upstream(name, vec![fake::peer(0, "10.0.0.1:80")]));
        all[0].zone = Some("z".to_owned());
        all[1].zone = Some("z".to_owned());
        Fake::new(all.to_vec())
    };
    let words = "several upstreams have zone \"z\", choose one by name: \"a\", \"b\"";
    for args in ["upstream=z", "upstream=z&peer=0&down=", "upstream=z&add=&server=10.0.0.2"] {
        let (status, body) = get(args, &shared());
        assert_eq!((status, body.trim_end()), (409, words), "{args}");
    }
    let (status, body) = get("stream=z&peer=0&down=1", &shared());
    assert_eq!((status, body), (409, format!("down nil {words}")));
    for name in ["A", "c_zone"] {
        assert_eq!(get(&format!("upstream={name}&peer=0&down="), &shared()).0, 200, "{name}");
    }
}

#[test]
fn what_has_pools_lists_them_and_is_not_changed() {
    let upstreams = fake::pooled();
    let lines = "# pool primary priority=0 failback=0s active\n# pool dr priority=10 failback=30s standby\n";
    for args in ["upstream=app", "upstream=app&verbose=", "upstream=app&peer=0"] {
        assert_eq!(get(args, &upstreams), (200, lines.to_owned()), "{args}");
    }
    for change in ["peer=0&down=", "id=0&weight=2", "add=&server=127.0.0.1:1", "remove=&server=127.0.0.1:1"] {
        let words = "upstream is static: it has pools, whose servers can be changed";
        assert_eq!(get(&format!("upstream=app&{change}"), &upstreams), (501, words.to_owned()), "{change}");
    }
    assert_eq!(get("upstream=app&id=0", &upstreams), (400, "server or peer is not found: \"0\"".to_owned()));
}

#[test]
fn changes() {
    let table = [
        (
            "server=127.0.0.1:8082&weight=10&max_fails=5&fail_timeout=5",
            "weight=10 max_fails=5 fail_timeout=5 max_conns=0 conns=0",
        ),
        ("peer=1&max_conns=9", "weight=1 max_fails=1 fail_timeout=10 max_conns=9 conns=0"),
        ("peer=127.0.0.1:8082&down=", "weight=1 max_fails=1 fail_timeout=10 max_conns=0 conns=0 down"),
        (
            "servers=127.0.0.1:8082&drain=",
            "weight=1 max_fails=1 fail_timeout=10 max_conns=0 conns=0 draining",
        ),
    ];
    for (args, second) in table {
        // Positions move when servers leave.
        let which = if args.starts_with("peer=1&") { "# peer=1 is server 127.0.0.1:8082 id=1\n" } else { "" };
        assert_eq!(
            get(&format!("upstream=backend&{args}"), &fake()),
            (200, verbose(second) + which),
            "{args}"
        );
    }
}

#[test]
fn a_change_by_id_answers_with_that_server() {
    let upstreams = fake();
    let table = [
        ("id=1&drain=1", "server 127.0.0.1:8082; # id=1 draining\n"),
        ("id=3&down=", "server 127.0.0.1:8084 backup down; # id=3\n"),
        ("id=1&up=&weight=2&fail_timeout=20s", "server 127.0.0.1:8082 weight=2 fail_timeout=20s; # id=1\n"),
    ];
    for (args, line) in table {
        assert_eq!(get(&format!("upstream=backend&{args}"), &upstreams), (200, line.to_owned()));
    }
}

#[test]
fn several_at_once() {
    let upstreams = fake();
    let (status, body) =
        get("upstream=backend&servers=127.0.0.1:8081,127.0.0.1:8084&down=&format=json", &upstreams);
    assert_eq!(status, 200);
    assert!(body.starts_with(r#"{"upstream":"backend","revision":4,"servers":[{"id":0,"#), "{body}");
    assert_eq!(upstreams.backend_peer(0).terms.admin, Admin::Down);
    assert_eq!(upstreams.backend_peer(3).terms.admin, Admin::Down);
    // One that is not there, and none is changed.
    let refused = get("upstream=backend&servers=127.0.0.1:8081,nope&up=", &upstreams);
    assert_eq!(refused, (400, "server or peer is not found: \"nope\"".to_owned()));
    assert_eq!(upstreams.backend_peer(0).terms.admin, Admin::Down);
}

#[test]
fn refusals() {
    let table = [
        ("upstream=nope", 404, "upstream is not found: \"nope\""),
        ("upstream=nope&peer=0&down=", 404, "upstream is not found: \"nope\""),
        ("upstream=backend&server=nope&down=", 400, "server or peer is not found: \"nope\""),
        ("upstream=backend&peer=3&down=", 400, "bad peer id: 3"),
        ("upstream=backend&server=127.0.0.2:80&down=", 400, "server or peer is not found: \"127.0.0.2:80\""),
        (
            "upstream=backend&server=127.0.0.1&down=",
            400,
            "server or peer is not found: \"127.0.0.1\", did you mean \"127.0.0.1:8081\" or \"127.0.0.1:8082\" or \
             \"app.example.com\"?",
        ),
        ("upstream=backend&id=9", 400, "server or peer is not found: \"9\""),
        ("upstream=backend&id=9&down=", 400, "server or peer is not found: \"9\""),
        ("upstream=fixed&peer=0&down=", 501, "only for upstream with 'zone'"),
    ];
    for (args, status, text) in table {
        assert_eq!(get(args, &fake()), (status, text.to_owned()), "{args}");
        let code = if status == 404 {
            "UpstreamNotFound"
        } else if status == 501 {
            "UpstreamStatic"
        } else {
            "ServerNotFound"
        };
        let text = text.replace('"', "\\\"");
        let json = format!(r#"{{"error":{{"status":{status},"text":"{text}","code":"{code}"}}}}"#);
        assert_eq!(get(&format!("{args}&format=json"), &fake()), (status, json), "{args}");
    }
}

#[test]
fn what_the_store_refuses() {
    let table = [
        (OpError::StoreFull { needed: 512 }, 500, false),
        (OpError::Busy, 503, true),
        (OpError::Reloaded, 503, true),
    ];
    for (error, status, retry) in table {
        let mut upstreams = fake();
        upstreams.refuse = Some(error);
        let refused = answer(
            &Call::get("upstream=backend&id=0&down="),
            Ok(&[]),
            Some(&upstreams),
            &Settings::default(),
        )
        .response;
        assert_eq!(refused.status, status);
        assert_eq!(refused.headers.contains(&("Retry-After", "1".to_owned())), retry);
    }
}

#[test]
fn json_after_a_change_is_the_revision_and_the_server() {
    for selector in ["server=127.0.0.1:8082", "peer=1", "id=1"] {
        let args = format!("upstream=backend&{selector}&down=&note=disk&format=json");
        let (status, body) = get(&args, &fake());
        assert_eq!(status, 200);
        assert!(body.starts_with(r#"{"upstream":"backend","revision":4,"server":{"id":1,"#), "{body}");
        let reason = r#"{"by":"operator","at":"2001-09-09T01:46:40Z","client":"127.0.0.1","note":"disk"}"#;
        assert!(body.contains(&format!(r#""state":"down","reason":{reason}"#)), "{body}");
    }
}

#[test]
fn what_is_logged() {
    let log = |args: &str| answer(&Call::get(args), Ok(&[]), Some(&fake()), &Settings::default()).log;
    assert!(log("upstream=backend").is_empty());
    assert!(log("upstream=backend&id=1&up=").is_empty(), "a no-op");
    assert_eq!(
        log("upstream=backend&id=1&down="),
        [(
            Level::Notice,
            "upstream \"backend\" server \"127.0.0.1:8082\": state up -> down, revision 4".to_owned()
        )]
    );
    assert_eq!(
        log("upstream=nope"),
        [(Level::Info, "upstream control: refused with 404: upstream is not found: \"nope\"".to_owned())]
    );
}
