//! Requests in the form of lua-resty-upstream's example.

use super::super::super::fake::{self, Fake, NOW, pooled};
use super::super::super::settings::Settings;
use super::super::{Pending, answer};
use super::*;
use crate::http::Method;
use crate::model::snapshot::StaticReason;
use crate::model::state::Failures;
use crate::model::time::UnixTime;
use crate::ops::Guard;

/// The answer in a location with these settings.
fn ask(uri: &str, args: &str, upstreams: &Fake, settings: &Settings) -> Answer {
    let call = Call { uri: uri.as_bytes(), ..Call::get(args) };
    answer(&call, Ok(&[]), Some(upstreams), settings)
}

/// Status and body of it.
fn get(uri: &str, upstreams: &Fake) -> (u16, String) {
    let response = ask(uri, "", upstreams, &Settings::default()).response;
    (response.status, crate::forms::fake::said(&response))
}

/// The value of `/pools`.
fn pools(upstreams: &Fake) -> serde_json::Value {
    serde_json::from_str(&get("/pools", upstreams).1).unwrap()
}

#[test]
fn paths() {
    let set = |admin, pool: &str, host: &str| {
        Some(PathOrder::Set { admin, pool: pool.to_owned(), host: host.to_owned() })
    };
    let table = [
        ("/pools", Some(PathOrder::Show)),
        ("/a/pools", Some(PathOrder::Show)),
        ("/pools/", None),
        ("/poolsx", None),
        ("/xpools", None),
        ("pools", Some(PathOrder::Show)),
        ("/pools/x", None),
        ("", None),
        ("/", None),
        ("/upstreamcontrol", None),
        ("/down_host/primary/1", set(Admin::Down, "primary", "1")),
        ("/up_host/primary/1", set(Admin::Up, "primary", "1")),
        ("/a/b/up_host/dr/127.0.0.1:81", set(Admin::Up, "dr", "127.0.0.1:81")),
        ("/down_host/p/[::1]:81", set(Admin::Down, "p", "[::1]:81")),
        ("/down_host/down_host/up_host", set(Admin::Down, "down_host", "up_host")),
        ("/down_host/primary/pools", set(Admin::Down, "primary", "pools")),
        ("/down_host/pools", Some(PathOrder::Malformed)),
        ("/down_host", Some(PathOrder::Malformed)),
        ("/down_host/", Some(PathOrder::Malformed)),
        ("/down_host/primary", Some(PathOrder::Malformed)),
        ("/up_host/primary/", Some(PathOrder::Malformed)),
        ("/up_host//1", Some(PathOrder::Malformed)),
        ("/up_host/primary/1/", Some(PathOrder::Malformed)),
        ("/up_host/primary/1/2", Some(PathOrder::Malformed)),
        ("/down_hosts/primary/1", None),
        ("/Down_host/primary/1", None),
    ];
    for (uri, wanted) in table {
        assert_eq!(order(uri.as_bytes(), Dialect::Any), wanted, "{uri}");
        assert_eq!(order(uri.as_bytes(), Dialect::UpstreamConf), None, "{uri}");
    }
}

#[test]
fn the_path_comes_before_the_arguments() {
    let upstreams = pooled();
    for args in ["upstream=app", "stream=app&peer=0&down=1", "replace=", "x="] {
        let response = ask("/pools", args, &upstreams, &Settings::default()).response;
        let name = args.split('=').next().unwrap();
        let body = format!("\"unknown argument \\\"{name}\\\"\"");
        assert_eq!((response.status, response.body), (400, body.into_bytes()), "{args}");
        assert_eq!(response.content_type, "application/json");
    }
    let call = Call { method: Method::Post, uri: b"/pools", ..Call::get("replace=") };
    let is_replacement = |call: &Call<'_>, dialect| {
        let settings = Settings { dialect, ..Settings::default() };
        Pending::new(call, &settings).is_ok_and(|pending| pending.is_replacement)
    };
    assert!(!is_replacement(&call, Dialect::Any));
    assert!(is_replacement(&Call { uri: b"/pool", ..call.clone() }, Dialect::Any));
    assert!(!is_replacement(&Call { uri: b"/pool", ..call }, Dialect::UpstreamConf));
    // The same words mean nothing to the other directive.
    let conf = Settings { dialect: Dialect::UpstreamConf, ..Settings::default() };
    let response = ask("/pools", "upstream=dr", &upstreams, &conf).response;
    assert_eq!(
        response.body,
        b"server 127.0.0.1:83 weight=10; # id=0\nserver 127.0.0.1:84 weight=10; # id=1\n"
    );
}

#[test]
fn all_pools() {
    let host = |id, port| {
        format!(
            r#"{{"id":"{id}","host":"127.0.0.1","port":{port},"weight":10,"up":true,"failcount":0,"lastfail":0}}"#
        )
    };
    let pool = |priority, hosts: [String; 2]| {
        format!(
            r#"{{"up":true,"method":"round_robin","priority":{priority},"failed_timeout":10,"max_fails":1,"hosts":[{}]}}"#,
            hosts.join(",")
        )
    };
    let (dr, primary) = (pool(10, [host(1, 83), host(2, 84)]), pool(0, [host(1, 81), host(2, 82)]));
    let spare = r#"{"up":true,"method":"round_robin","priority":0,"failed_timeout":10,"max_fails":1,"#
        .to_owned()
        + r#""hosts":[{"id":"1","host":"10.0.0.9","weight":1,"up":true,"failcount":0,"lastfail":0}]}"#;
    let wanted = format!(r#"{{"dr":{dr},"primary":{primary},"spare":{spare}}}"#);
    assert_eq!(get("/pools", &pooled()), (200, wanted));

    let narrow = |name: &str| {
        let settings = Settings { upstream: Some(name.to_owned()), ..Settings::default() };
        String::from_utf8(ask("/pools", "", &pooled(), &settings).response.body).unwrap()
    };
    assert_eq!(narrow("app"), format!(r#"{{"dr":{dr},"primary":{primary}}}"#));
    let (primary, _) = (pool(10, [host(1, 81), host(2, 82)]), dr);
    assert_eq!(narrow("other"), format!(r#"{{"primary":{primary},"spare":{spare}}}"#));
    assert_eq!(narrow("alone"), "{}");
    assert_eq!(narrow("spare"), format!(r#"{{"spare":{spare}}}"#), "a pool by itself");
    assert_eq!(get("/pools", &fake::fake()), (200, "{}".to_owned()));
}

#[test]
fn hosts_that_failed_and_hosts_that_were_taken_down() {
    let failed = |admin, fails, checked: i64| {
        let mut peer = fake::peer(4, "[::1]:81");
        peer.terms.admin = admin;
        peer.failures = Failures { fails, max_fails: 2, fail_timeout: 10, checked, single: false };
        peer.last_failure = Some(UnixTime(checked));
        fake::upstream("p", vec![peer])
    };
    let table = [
        (Admin::Up, 0, NOW.0, (true, 0, 0)),
        (Admin::Up, 1, NOW.0 - 3, (true, 1, NOW.0 - 3)),
        (Admin::Up, 2, NOW.0 - 3, (false, 2, NOW.0 - 3)),
        // fail_timeout is over.
        (Admin::Up, 2, NOW.0 - 11, (true, 0, 0)),
        (Admin::Down, 2, NOW.0, (false, 0, 0)),
        (Admin::Drain, 2, NOW.0, (false, 0, 0)),
    ];
    for (admin, fails, checked, (up, failcount, lastfail)) in table {
        let composed = fake::composed("c", &[("p", crate::model::pools::Standing::Active)]);
        let upstreams = Fake::new(vec![failed(admin, fails, checked), composed]);
        let found = &pools(&upstreams)["p"];
        assert_eq!(found["up"], up, "{admin:?} {fails} {checked}");
        let host = serde_json::json!({"id": "5", "host": "[::1]", "port": 81, "weight": 1, "up": up,
            "failcount": failcount, "lastfail": lastfail});
        assert_eq!(found["hosts"][0], host, "{admin:?} {fails} {checked}");
    }
}

#[test]
fn a_host_is_taken_down_and_brought_up() {
    for host in ["1", "001", "127.0.0.1:81"] {
        let upstreams = pooled();
        let is_up = || pools(&upstreams)["primary"]["hosts"][0]["up"].clone();
        let down =
            ask(&format!("/api/down_host/primary/{host}"), "note=disk", &upstreams, &Settings::default());
        assert_eq!((down.response.status, down.response.body.len()), (200, 0), "{host}");
        assert_eq!(
            down.log,
            [(
                Level::Notice,
                "upstream \"primary\" server \"127.0.0.1:81\": state up -> down, revision 4, note: \"disk\""
                    .to_owned()
            )]
        );
        assert_eq!(is_up(), false, "{host}");
        assert_eq!(get(&format!("/up_host/primary/{host}"), &upstreams), (200, String::new()));
        assert_eq!(is_up(), true, "{host}");
    }
    // By the name of the zone, as everywhere.
    assert_eq!(get("/down_host/primary_zone/2", &pooled()), (200, String::new()));
}

#[test]
fn what_is_not_there() {
    let long = format!("/down_host/primary/{}", "9".repeat(30));
    let table = [
        ("/down_host/nope/1", "\"Pool nope not found\""),
        ("/up_host/nope/1", "\"Pool not found\""),
        ("/down_host/a\"\\\u{7}/1", r#""Pool a\"\\\u0007 not found""#),
        // An upstream that is no pool, and one that has pools.
        ("/down_host/alone/1", "\"Pool alone not found\""),
        ("/up_host/app/1", "\"Pool not found\""),
        ("/down_host/primary/3", "\"Host not found\""),
        ("/up_host/primary/0", "\"Host not found\""),
        ("/up_host/primary/-1", "\"Host not found\""),
        ("/up_host/primary/127.0.0.1:83", "\"Host not found\""),
        (long.as_str(), "\"Host not found\""),
    ];
    for (uri, body) in table {
        for (host_errors, status) in [(HostErrors::Failed, 500), (HostErrors::Ok, 200)] {
            let settings = Settings { host_errors, ..Settings::default() };
            let answer = ask(uri, "", &pooled(), &settings);
            let response = answer.response;
            assert_eq!(
                // Without the end of a line, as in the contract.
                (response.status, String::from_utf8(response.body).unwrap()),
                (status, body.to_owned())
            );
            assert_eq!(response.content_type, "application/json");
            let words: String = serde_json::from_str(body).unwrap();
            assert_eq!(answer.log, [(Level::Error, format!("upstream control: {words}"))]);
        }
    }
    assert_eq!(
        get("/down_host/primary", &pooled()),
        (
            404,
            r#""no such URI \"/down_host/primary\", it must end in \"/down_host/POOL/HOST\" or \"/up_host/POOL/HOST\"""#
                .to_owned()
        )
    );
}

#[test]
fn other_refusals_are_words_in_a_string() {
    let mut upstreams = pooled();
    upstreams.guard = Some(Guard::Servers(2));
    let ask = |uri, args| {
        let settings = Settings { host_errors: HostErrors::Ok, ..Settings::default() };
        let response = ask(uri, args, &upstreams, &settings).response;
        (response.status, crate::forms::fake::said(&response))
    };
    let guard = r#""guard: 1 usable server would be left, at least 2 must be, use \"force=\"""#;
    assert_eq!(ask("/down_host/primary/1", ""), (409, guard.to_owned()));
    assert_eq!(ask("/down_host/primary/1", "force="), (200, String::new()));
    assert_eq!(ask("/up_host/primary/1", "x="), (400, r#""unknown argument \"x\"""#.to_owned()));
    assert_eq!(
        ask("/up_host/primary/1", "force=0"),
        (400, r#""invalid value \"0\" in \"force\", leave it out""#.to_owned())
    );
    assert_eq!(ask("/up_host/primary/1", "%"), (400, r#""invalid percent-encoding in \"%\"""#.to_owned()));
    assert_eq!(
        ask("/pools", "format=x"),
        (400, r#""invalid value \"x\" in \"format\", it must be \"json\" or \"text\"""#.to_owned())
    );
    assert_eq!(ask("/pools", "note=x"), (400, r#""unknown argument \"note\"""#.to_owned()));

    let mut fixed = fake::upstream("p", vec![fake::peer(0, "a")]);
    fixed.fixed = Some(StaticReason::StoreFull);
    let composed = fake::composed("c", &[("p", crate::model::pools::Standing::Active)]);
    let (status, body) = get("/down_host/p/1", &Fake::new(vec![fixed, composed]));
    assert_eq!(status, 501);
    assert!(body.starts_with("\"upstream is static: no memory left"), "{body}");
}

#[test]
fn in_json_it_answers_as_other_forms_do() {
    let upstreams = pooled();
    let ask = |uri| {
        let response = ask(uri, "format=json", &upstreams, &Settings::default()).response;
        (response.status, crate::forms::fake::said(&response))
    };
    let (status, body) = ask("/down_host/primary/2");
    assert_eq!(status, 200);
    assert!(
        body.starts_with(r#"{"upstream":"primary","revision":4,"server":{"id":1,"server":"127.0.0.1:82","#)
    );
    let error = |status, text: &str, code: &str| {
        format!(r#"{{"error":{{"status":{status},"text":"{text}","code":"{code}"}}}}"#)
    };
    assert_eq!(
        ask("/down_host/nope/1"),
        (404, error(404, r#"upstream is not found: \"nope\""#, "UpstreamNotFound"))
    );
    assert_eq!(ask("/up_host/dr/9"), (400, error(400, "server or peer is not found", "ServerNotFound")));
    assert!(ask("/up_host/dr").1.ends_with(r#""code":"PathNotFound"}}"#));
    assert!(ask("/pools").1.starts_with(r#"{"dr":{"up":true,"#));
}

#[test]
fn a_location_of_one_upstream_knows_no_other() {
    let settings = Settings { upstream: Some("app".to_owned()), ..Settings::default() };
    let ask = |uri: &str, args: &str| {
        let response = ask(uri, args, &pooled(), &settings).response;
        (response.status, crate::forms::fake::said(&response))
    };
    assert_eq!(ask("/down_host/primary/1", ""), (200, String::new()));
    assert_eq!(ask("/down_host/spare/1", ""), (500, "\"Pool spare not found\"".to_owned()));
    let table = [
        ("upstream=spare", 404, "upstream is not found: \"spare\""),
        ("upstream=alone&peer=0&down=", 404, "upstream is not found: \"alone\""),
        ("upstream=alone_zone&id=0", 404, "upstream is not found: \"alone_zone\""),
        ("stream=alone&peer=0&down=1", 404, "down nil upstream not found"),
        ("upstream=*&server=10.0.0.9&down=", 404, "no upstream has this server: \"10.0.0.9\""),
        ("upstream=*&server=127.0.0.1&drain=", 200, "dr: 2 servers changed\nprimary: 2 servers changed\n"),
        ("upstream=dr&id=0", 200, "server 127.0.0.1:83 weight=10; # id=0\n"),
    ];
    for (args, status, body) in table {
        assert_eq!(ask("/upstreamcontrol", args), (status, body.to_owned()), "{args}");
    }
}
