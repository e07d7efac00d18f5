//! Requests with a list, and their replies.

use super::super::super::fake::{self, Fake, fake};
use super::super::super::settings::Settings;
use super::*;
use crate::model::id::UpstreamIndex;
use crate::ops::Guard;

/// A `POST` by curl, of a body without a type.
fn post(args: &str) -> Call<'_> {
    Call { method: Method::Post, ..Call::get(args) }
}

/// The answer to a list, which is worked on in the smallest slices.
fn answer(call: &Call<'_>, body: &str, upstreams: &Fake) -> Answer {
    let begun = Query::parse(call.args).map_err(Refusal::from);
    let begun = begun.and_then(|query| begin(call, &query, body.as_bytes().to_vec(), None));
    let mut work = match begun {
        Ok(work) => work,
        Err(refusal) => return Answer::refused(&refusal, Format::Text),
    };
    loop {
        if let Some(answer) = work.advance(Some(upstreams), || true) {
            return answer;
        }
    }
}

/// Status and body of the reply to a list.
fn reply(args: &str, body: &str, upstreams: &Fake) -> (u16, String) {
    let response = answer(&post(args), body, upstreams).response;
    (response.status, crate::forms::fake::said(&response))
}

/// `backend` as it is, but for the second server, with another one.
const LIST: &str = "server 127.0.0.1:8081;\nserver app.example.com weight=2 down;\n\
                    server 127.0.0.1:8084 backup;\nserver 127.0.0.9;\n";

#[test]
fn the_plan_and_what_was_done() {
    let fake = fake();
    let lines = "removed 127.0.0.1:8082 id=1\nadded 127.0.0.9\n\
                 changed app.example.com id=2, state up -> down, weight 1 -> 2\n";
    let head = "backend: 1 added, 1 removed, 1 changed, 2 unchanged, revision";
    assert_eq!(
        reply("upstream=backend&replace=&dry_run=", LIST, &fake),
        (200, format!("{head} 3, dry run\n{lines}"))
    );
    assert_eq!(fake.snapshot(UpstreamIndex(0)).unwrap().revision.0, 3);
    let lines = lines.replace("127.0.0.9\n", "127.0.0.9 id=4\n");
    assert_eq!(reply("upstream=backend&replace=", LIST, &fake), (200, format!("{head} 4\n{lines}")));
    let same = "backend: 0 added, 0 removed, 0 changed, 4 unchanged, revision 4\n";
    assert_eq!(reply("upstream=backend_zone&replace=", LIST, &fake), (200, same.to_owned()));
}

#[test]
fn the_same_in_json() {
    let list = r#"[{"server":"127.0.0.1:8081"},{"server":"app.example.com","weight":2,"down":true},
                   {"server":"127.0.0.1:8084","backup":true},{"server":"127.0.0.9"}]"#;
    let call = Call {
        content_type: Some(b"Application/JSON; charset=utf-8"),
        ..post("upstream=backend&replace=&format=json")
    };
    let done = answer(&call, list, &fake()).response;
    let wanted = concat!(
        r#"{"upstream":"backend","revision":4,"#,
        r#""added":[{"id":4,"server":"127.0.0.9","name":"127.0.0.9:80","backup":false,"weight":1,"max_conns":0,"#,
        r#""max_fails":1,"fail_timeout":"10s","state":"up"}],"#,
        r#""removed":[{"id":1,"server":"127.0.0.1:8082","name":"127.0.0.1:8082","active":0}],"#,
        r#""changed":[{"id":2,"server":"app.example.com","changes":{"state":{"from":"up","to":"down"},"#,
        r#""weight":{"from":1,"to":2}}}],"unchanged":2}"#,
    );
    assert_eq!(crate::forms::fake::said(&done), wanted);
    let (_, dry) = reply("upstream=backend&replace=&dry_run=&format=json", LIST, &fake());
    assert!(
        dry.starts_with(r#"{"upstream":"backend","revision":3,"dry_run":true,"added":[{"server":"#),
        "{dry}"
    );
}

/// Two upstreams of one server each.
fn two() -> Fake {
    let upstream = |name| fake::upstream(name, vec![fake::peer(0, "10.0.0.1:80")]);
    Fake::new(vec![upstream("a"), upstream("b")])
}

#[test]
fn several_upstreams_or_none() {
    let list = "upstream b { server 10.0.0.2; }\nupstream a { server 10.0.0.1:80 weight=2; }\n";
    let fake = two();
    let wanted = "b: 1 added, 1 removed, 0 changed, 0 unchanged, revision 4\n\
                  removed 10.0.0.1:80 id=0\nadded 10.0.0.2 id=1\n\
                  a: 0 added, 0 removed, 1 changed, 0 unchanged, revision 4\n\
                  changed 10.0.0.1:80 id=0, weight 1 -> 2\n";
    assert_eq!(reply("replace=", list, &fake), (200, wanted.to_owned()));
    let call = Call { content_type: Some(b"application/json"), ..post("replace=&format=json") };
    let body = answer(&call, r#"{"a":[{"server":"10.0.0.3"}]}"#, &fake).response.body;
    assert!(body.starts_with(br#"[{"upstream":"a","revision":5,"added":[{"#));

    let mut guarded = two();
    guarded.guard = Some(Guard::Servers(1));
    let list = "upstream a { server 10.0.0.2; }\nupstream b { server 10.0.0.2 down; }\n";
    let text = "upstream \"b\": guard: 0 usable servers would be left, at least 1 must be, use \"force=\"";
    assert_eq!(reply("replace=", list, &guarded), (409, text.to_owned()));
    assert_eq!(guarded.snapshot(UpstreamIndex(0)).unwrap().revision.0, 3);
    assert_eq!(reply("replace=&force=", list, &guarded).0, 200);
}

#[test]
fn what_is_refused() {
    let table = [
        (
            "upstream=backend&replace=",
            "",
            409,
            "the list has no servers, use \"force=\" to remove all of them",
        ),
        ("replace=", "", 400, "upstream required"),
        ("upstream=&replace=", "server 10.0.0.1;", 400, "upstream required"),
        ("replace=", "server 10.0.0.1;", 400, "upstream required"),
        (
            "replace=&upstream=backend",
            "\nupstream backend { server 10.0.0.1; }",
            400,
            "line 2: a list with names of upstreams and \"upstream=\" at once are not allowed",
        ),
        ("replace=&upstream=backend&weight=2", "server 10.0.0.1;", 400, "unknown argument \"weight\""),
        (
            "replace=0&upstream=backend",
            "server 10.0.0.1;",
            400,
            "invalid value \"0\" in \"replace\", leave it out",
        ),
        (
            "replace=&upstream=backend&dry_run=no",
            "",
            400,
            "invalid value \"no\" in \"dry_run\", leave it out",
        ),
        ("replace=&upstream=nobody", "server 10.0.0.1;", 404, "upstream is not found: \"nobody\""),
        ("replace=", "upstream nobody { server 10.0.0.1; }", 404, "upstream is not found: \"nobody\""),
        ("replace=&upstream=fixed", "server 10.0.0.1;", 501, "only for upstream with 'zone'"),
        (
            "replace=&upstream=backend",
            "server 10.0.0.1",
            400,
            "line 1: the list ends where \";\" must follow",
        ),
        (
            "replace=&upstream=backend",
            "server 10.0.0.1;\n\nserver 10.0.0.1 weight=2;",
            400,
            "line 3: server \"10.0.0.1\" is also in line 1",
        ),
        (
            "replace=&upstream=backend",
            "server 10.0.0.1;\n\nserver 10.0.0.1:80;",
            400,
            "line 3: server \"10.0.0.1:80\" is also in line 1",
        ),
        (
            "replace=",
            "upstream backend {\nserver app.example.com backup;}",
            412,
            "line 2: can't change server type (primary<->backup)",
        ),
    ];
    for (args, body, status, text) in table {
        assert_eq!(reply(args, body, &fake()), (status, text.to_owned()), "{args} {body}");
    }
    let form = Call {
        content_type: Some(b"application/x-www-form-urlencoded"),
        ..post("upstream=backend&replace=")
    };
    let refused = answer(&form, "server 10.0.0.1;", &fake()).response;
    assert_eq!(refused.status, 415);
    assert!(refused.body.starts_with(b"replace: unsupported Content-Type \"application/x-www-form-urlencoded\", the list must be \"text/plain\" or \"application/json\""));
}

#[test]
fn the_same_line_twice_is_one_server_and_is_told() {
    let list = "server 127.0.0.1:8081;\nserver 10.0.0.1;\nserver 127.0.0.1:8081;\nserver 10.0.0.1;\n";
    let (status, text) = reply("upstream=backend&replace=&force=", list, &fake());
    assert_eq!(status, 200, "{text}");
    let start = "backend: 1 added, 3 removed, 0 changed, 1 unchanged, revision 4\n\
                 # line 3: server \"127.0.0.1:8081\" is also in line 1, taken once\n\
                 # line 4: server \"10.0.0.1\" is also in line 2, taken once\n";
    assert!(text.starts_with(start), "{text}");
    let (_, json) = reply("upstream=backend&replace=&format=json", list, &fake());
    assert!(
        json.contains(r#","notices":["line 3: server \"127.0.0.1:8081\" is also in line 1, taken once","#),
        "{json}"
    );
}

#[test]
fn what_stands_for_no_server_leaves_in_silence() {
    let upstreams = Fake::new(vec![fake::upstream("u", vec![fake::peer(0, "[::]:1")])]);
    let (_, text) = reply("upstream=u&replace=", "server 10.0.0.1;", &upstreams);
    assert_eq!(text, "u: 1 added, 0 removed, 0 changed, 0 unchanged, revision 4\nadded 10.0.0.1 id=1\n");
    assert_eq!(upstreams.snapshot(UpstreamIndex(0)).unwrap().peers.len(), 1);
}

#[test]
fn a_refused_commit_says_why() {
    let mut full = two();
    full.refuse = Some(OpError::ZoneFull { zone: "a_zone".to_owned(), needed: 512 });
    let (status, text) = reply("upstream=a&replace=", "server 10.0.0.2;", &full);
    assert_eq!(status, 500);
    assert!(text.starts_with("no memory left in zone \"a_zone\", 512 bytes are needed"), "{text}");
}

#[test]
fn the_log_has_a_line_for_each_server_up_to_a_bound() {
    let log = answer(&post("upstream=backend&replace=&note=release"), LIST, &fake()).log;
    let lines: Vec<_> = log.iter().map(|(_, line)| line.as_str()).collect();
    assert_eq!(lines.len(), 3);
    assert_eq!(
        lines[0],
        "upstream \"backend\" server \"app.example.com\": state up -> down, weight 1 -> 2, revision 4, \
         note: \"release\""
    );
    let many: String = (0..300).map(|n| format!("server 10.0.1.{}:{};\n", n % 250, 80 + n)).collect();
    let log = answer(&post("upstream=backend&replace="), &many, &fake()).log;
    assert_eq!(log.len(), LINES_AND_COUNT);
    assert_eq!(log[LINES_AND_COUNT - 1].1, "upstream \"backend\": 204 more servers, revision 4");
    assert!(answer(&post("upstream=backend&replace=&dry_run="), &many, &fake()).log.is_empty());
}

/// Lines of the log for a change of many servers.
const LINES_AND_COUNT: usize = 101;

#[test]
fn only_in_the_query_string_of_a_post() {
    let is_meant = |args: &str, dialect| is_meant(&Query::parse(args.as_bytes()).unwrap(), dialect);
    assert!(is_meant("replace=&upstream=u", Dialect::Any) && is_meant("replace", Dialect::Any));
    assert!(!is_meant("replaced=", Dialect::Any) && !is_meant("replace=", Dialect::UpstreamConf));
    let get = super::super::answer(
        &Call::get("upstream=backend&replace="),
        Ok(&[]),
        Some(&fake()),
        &Settings::default(),
    );
    assert_eq!(
        (get.response.status, get.response.body.as_slice()),
        (405, &b"replace: only POST allowed\n"[..])
    );
    let form = Call { content_type: Some(b"application/x-www-form-urlencoded"), ..post("upstream=backend") };
    let form = super::super::answer(&form, Ok(b"replace="), Some(&fake()), &Settings::default());
    assert_eq!(form.response.status, 400);
}

#[test]
fn a_location_of_one_upstream_replaces_no_other() {
    let upstreams = fake::pooled();
    let replace = |args: &str, body: &str| {
        let query = Query::parse(args.as_bytes()).unwrap();
        let scope = Some("app".to_owned());
        let mut work = begin(&post(args), &query, body.as_bytes().to_vec(), scope).unwrap();
        let response = loop {
            if let Some(answer) = work.advance(Some(&upstreams), || true) {
                break answer.response;
            }
        };
        (response.status, crate::forms::fake::said(&response))
    };
    let here = replace("replace=&upstream=dr", "server 127.0.0.1:83 weight=10;");
    assert_eq!(
        (here.0, here.1.lines().next().unwrap()),
        (200, "dr: 0 added, 1 removed, 0 changed, 1 unchanged, revision 4")
    );
    assert_eq!(
        replace("replace=&upstream=alone", "server 127.0.0.1:83;"),
        (404, "upstream is not found: \"alone\"".to_owned())
    );
    let body = "upstream dr { server 127.0.0.1:84; } upstream spare { server 10.0.0.8; }";
    assert_eq!(replace("replace=", body), (404, "upstream is not found: \"spare\"".to_owned()));
    assert_eq!(upstreams.snapshot(UpstreamIndex(0)).unwrap().peers.len(), 1);
}
