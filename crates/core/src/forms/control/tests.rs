//! How requests get in, and which form takes them.

use super::super::fake::{Fake, fake};
use super::super::settings::Methods;
use super::*;

/// Status and body of the reply to a form.
fn post(args: &str, content_type: Option<&str>, body: &str, upstreams: &Fake) -> (u16, String) {
    let content_type = content_type.map(str::as_bytes);
    let call = Call { method: Method::Post, content_type, ..Call::get(args) };
    let response = answer(&call, Ok(body.as_bytes()), Some(upstreams), &Settings::default()).response;
    (response.status, crate::forms::fake::said(&response))
}

#[test]
fn arguments_come_in_the_query_or_in_a_form() {
    let down = "server 127.0.0.1:8082; # id=1 draining\n";
    for (args, body) in [
        ("upstream=backend&id=1&drain=", ""),
        ("upstream=backend", "id=1&drain="),
        ("", "upstream=backend&id=1&drain="),
    ] {
        for content_type in [FORM, "Application/X-WWW-Form-Urlencoded ; charset=utf-8"] {
            assert_eq!(
                post(args, Some(content_type), body, &fake()),
                (200, down.to_owned()),
                "{args} {body}"
            );
        }
    }
}

#[test]
fn what_is_no_form_is_refused() {
    for content_type in [None, Some("text/plain"), Some("application/json"), Some("")] {
        let (status, text) = post("upstream=backend", content_type, "id=1&drain=", &fake());
        let given = content_type
            .map_or("no Content-Type".to_owned(), |it| format!("unsupported Content-Type \"{it}\""));
        assert_eq!((status, text), (415, format!("{given}, only \"{FORM}\" is understood")));
        assert_eq!(post("upstream=backend&id=1", content_type, "", &fake()).0, 200);
    }
}

#[test]
fn an_argument_in_both_places_is_refused() {
    let (status, text) = post("upstream=backend&id=1", Some(FORM), "id=2&drain=", &fake());
    assert_eq!((status, text.as_str()), (400, "duplicate argument \"id\""));
}

#[test]
fn bodies_that_are_too_large_or_lost() {
    let call = Call { method: Method::Post, ..Call::get("") };
    let found = |error| answer(&call, Err(error), Some(&fake()), &Settings::default()).response.status;
    assert_eq!(found(BodyError::TooLarge), 413);
    assert_eq!(found(BodyError::Unreadable), 500);
    let body = format!("upstream=backend&note={}", "x".repeat(MAX_RAW_LENGTH));
    assert_eq!(post("", Some(FORM), &body, &fake()).0, 413);
}

#[test]
fn without_shared_memory() {
    let response = answer(&Call::get("upstream=backend"), Ok(&[]), None, &Settings::default()).response;
    assert_eq!((response.status, response.body.as_slice()), (500, b"no shared memory\n".as_slice()));
}

#[test]
fn guards_answer_in_the_form_asked_for() {
    let admit = |call: &Call<'_>, methods: Option<Methods>| {
        let settings = methods.map(|methods| Settings { methods, ..Settings::default() });
        admit(call, settings.as_ref()).unwrap_err().response
    };
    let head = Call { method: Method::Head, ..Call::get("upstream=backend&down=&server=x") };
    let refused = admit(&head, Some(Methods::Any));
    assert_eq!((refused.status, refused.body.as_slice()), (405, b"only GET and POST allowed\n".as_slice()));
    assert!(refused.headers.contains(&("Allow", "GET, POST".to_owned())));
    let refused = admit(&Call { args: b"format=json", ..head.clone() }, Some(Methods::Any));
    assert!(refused.body.starts_with(b"{\"error\":{\"status\":405,"));
    let refused = admit(&Call { args: b"%", accept: Some(b"application/json"), ..head.clone() }, None);
    assert_eq!(refused.status, 500);
    assert!(refused.body.starts_with(b"{"));
}

#[test]
fn the_arguments_choose_the_form() {
    let table = [
        ("stream=backend&peer=0&down=1", 200, "down true nil\n"),
        ("stream=&peer=0&down=1", 400, "upstream required"),
        ("", 400, "upstream required"),
        ("upstream=backend&id=0", 200, "server 127.0.0.1:8081; # id=0\n"),
        ("upstream=backend&stream=", 501, "stream: not yet supported"),
        ("upstream=backend&upstream=backend", 400, "duplicate argument \"upstream\""),
        ("upstream=%zz", 400, "invalid percent-encoding in \"upstream=%zz\""),
        (
            "upstream=backend&format=yaml",
            400,
            "invalid value \"yaml\" in \"format\", it must be \"json\" or \"text\"",
        ),
    ];
    for (args, status, body) in table {
        let response = answer(&Call::get(args), Ok(&[]), Some(&fake()), &Settings::default()).response;
        assert_eq!((response.status, crate::forms::fake::said(&response)), (status, body.to_owned()));
    }
}

#[test]
fn a_body_is_read_where_there_may_be_one() {
    let limit = |call: &Call<'_>, settings: &Settings| match start(call, Some(settings), Some(&fake())) {
        Start::ReadBody { limit, .. } => Ok(limit),
        Start::Answer(Answer { response, .. }) => Err(response.status),
    };
    let post = |args| Call { method: Method::Post, ..Call::get(args) };
    let (any, plus) =
        (Settings::default(), Settings { dialect: Dialect::UpstreamConf, ..Settings::default() });
    assert_eq!(limit(&Call::get("upstream=backend"), &any), Err(200));
    assert_eq!(limit(&post("upstream=backend"), &any), Ok(MAX_RAW_LENGTH));
    assert_eq!(limit(&post("upstream=backend&replace="), &any), Ok(replace::BODY_LIMIT));
    assert_eq!(limit(&post("upstream=backend&replace="), &plus), Ok(MAX_RAW_LENGTH));
    let pools = Call { uri: b"/control/pools", ..post("replace=") };
    assert_eq!(limit(&pools, &any), Ok(MAX_RAW_LENGTH));
    assert_eq!(limit(&post("upstream=%zz"), &any), Err(400), "nothing in a body makes up for that");
    assert_eq!(limit(&post("upstream=a&upstream=b"), &any), Err(400));
}

#[test]
fn a_list_that_is_not_to_be_had() {
    let call = Call { method: Method::Post, ..Call::get("upstream=backend&replace=") };
    let finish = |body| match start(&call, Some(&Settings::default()), None) {
        Start::ReadBody { pending, .. } => pending.finish(&call, body, Some(&fake())),
        Start::Answer(answer) => Finish::Answer(answer),
    };
    for (error, status, text) in [
        (BodyError::TooLarge, 413, "request body is larger than 16777216 bytes"),
        (BodyError::Unreadable, 500, "request body cannot be read"),
    ] {
        let Finish::Answer(answer) = finish(Err(error)) else { panic!("{error:?}") };
        assert_eq!(
            (answer.response.status, answer.response.body),
            (status, format!("{text}\n").into_bytes())
        );
    }
    assert!(matches!(finish(Ok(Vec::new())), Finish::Work(_)));
}
