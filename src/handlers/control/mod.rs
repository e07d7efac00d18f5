//! `upstream_control`: changes servers, in the forms of the programs that did this before.
//!
//! | arguments | form |
//! |---|---|
//! | `stream=NAME` without `upstream=` | [`eblb`] |
//! | `upstream=` with `id=` | [`dynamic`], but the reply is in the lines of `upstream_conf` |
//! | others | [`dynamic`] |

mod change;
mod dynamic;
mod eblb;
mod json;
mod lines;
mod order;

use crate::model::query::{MAX_RAW_LENGTH, Query, QueryError};
use crate::nginx::http::{BodyError, Handler, Method, Request, Response, Step};
use crate::ops::Upstreams;

use super::accept::{self, Format};
use super::call::Call;
use super::error::{Kind, Refusal};
use super::respond::{self, Answer};
use super::settings::Methods;
use super::{Context, Settings, guard};

/// The media type of a form.
const FORM: &str = "application/x-www-form-urlencoded";

/// The handler.
pub struct Control;

impl Handler for Control {
    const BODY_LIMIT: usize = MAX_RAW_LENGTH;

    fn start(request: &Request<'_>) -> Step {
        let call = Call::of(request);
        // SAFETY: the module's location configuration begins with a `Settings`, by the duty of the entry function's
        // caller.
        let settings = unsafe { request.loc_conf::<Settings>() };
        match admit(&call, settings.map(|settings| settings.methods)) {
            Err(refused) => Step::Reply(refused.deliver(request)),
            Ok(()) if call.method == Method::Post => Step::ReadBody,
            Ok(()) => Step::Reply(answer(&call, Ok(&[]), upstreams(request)).deliver(request)),
        }
    }

    fn finish(request: &Request<'_>, body: Result<&[u8], BodyError>) -> Response {
        answer(&Call::of(request), body, upstreams(request)).deliver(request)
    }

    fn failed() -> Response {
        respond::failed()
    }
}

/// The upstreams of the http block.
fn upstreams<'a>(request: &'a Request<'_>) -> Option<&'a dyn Upstreams> {
    // SAFETY: the module's main configuration begins with a `Context`, by the duty of the entry function's caller.
    let context = unsafe { request.main_conf::<Context>() };
    context.and_then(|context| context.upstreams.as_deref())
}

/// Whether a request may go on; its body was not read yet.
fn admit(call: &Call<'_>, methods: Option<Methods>) -> Result<(), Answer> {
    let methods = methods.ok_or_else(|| Refusal::new(Kind::Internal, "location is not configured"));
    methods
        .and_then(|methods| guard::control(call, methods))
        .map_err(|refusal| Answer::refused(&refusal, likely_format(call)))
}

/// The answer to a request that may go on.
fn answer(call: &Call<'_>, body: Result<&[u8], BodyError>, upstreams: Option<&dyn Upstreams>) -> Answer {
    let parsed = arguments(call, body).and_then(|query| {
        let format = accept::for_control(&query, call.accept)?;
        Ok((query, format))
    });
    let (query, format) = match parsed {
        Ok(parsed) => parsed,
        Err(refusal) => return Answer::refused(&refusal, likely_format(call)),
    };
    let Some(upstreams) = upstreams else {
        return Answer::refused(&Refusal::no_memory_zone(), format);
    };
    if !query.has("upstream") && query.get("stream").is_some_and(|name| !name.is_empty()) {
        return eblb::answer(call, &query, upstreams, format);
    }
    dynamic::answer(call, &query, upstreams, format)
        .unwrap_or_else(|refusal| Answer::refused(&refusal, format))
}

/// The form for a refusal whose arguments may be unreadable.
fn likely_format(call: &Call<'_>) -> Format {
    let query = Query::parse(call.args).unwrap_or_default();
    accept::for_control(&query, call.accept).unwrap_or_else(|_| accept::by_header(call.accept))
}

/// The arguments, in the query string and in a form.
fn arguments(call: &Call<'_>, body: Result<&[u8], BodyError>) -> Result<Query, Refusal> {
    let mut query = Query::parse(call.args)?;
    let body = body.map_err(|error| match error {
        BodyError::TooLarge => too_large(),
        BodyError::Unreadable => Refusal::new(Kind::Internal, "request body cannot be read"),
    })?;
    if body.is_empty() {
        return Ok(query);
    }
    if !is_form(call.content_type) {
        return Err(Refusal::new(Kind::UnsupportedBody, format!("only \"{FORM}\" is understood")));
    }
    query.extend(body).map_err(|error| match error {
        QueryError::TooLong => too_large(),
        error => error.into(),
    })?;
    Ok(query)
}

/// The refusal of a body that is too large.
fn too_large() -> Refusal {
    Refusal::new(Kind::BodyTooLarge, format!("request body is larger than {MAX_RAW_LENGTH} bytes"))
}

/// Whether `Content-Type` names a form.
fn is_form(content_type: Option<&[u8]>) -> bool {
    let essence = content_type.and_then(|value| value.split(|byte| *byte == b';').next());
    essence.is_some_and(|essence| essence.trim_ascii().eq_ignore_ascii_case(FORM.as_bytes()))
}

#[cfg(test)]
mod tests {
    use super::super::fake::{Fake, fake};
    use super::*;

    /// Status and body of the reply to a form.
    fn post(args: &str, content_type: Option<&str>, body: &str, upstreams: &Fake) -> (u16, String) {
        let content_type = content_type.map(str::as_bytes);
        let call = Call { method: Method::Post, content_type, ..Call::get(args) };
        let response = answer(&call, Ok(body.as_bytes()), Some(upstreams)).response;
        (response.status, String::from_utf8(response.body).unwrap())
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
            assert_eq!((status, text), (415, format!("only \"{FORM}\" is understood")), "{content_type:?}");
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
        let found = |error| answer(&call, Err(error), Some(&fake())).response.status;
        assert_eq!(found(BodyError::TooLarge), 413);
        assert_eq!(found(BodyError::Unreadable), 500);
        let body = format!("upstream=backend&note={}", "x".repeat(MAX_RAW_LENGTH));
        assert_eq!(post("", Some(FORM), &body, &fake()).0, 413);
    }

    #[test]
    fn without_shared_memory() {
        let response = answer(&Call::get("upstream=backend"), Ok(&[]), None).response;
        assert_eq!((response.status, response.body.as_slice()), (500, b"no shared memory".as_slice()));
    }

    #[test]
    fn guards_answer_in_the_form_asked_for() {
        let admit = |call: &Call<'_>, methods| admit(call, methods).unwrap_err().response;
        let head = Call { method: Method::Head, ..Call::get("upstream=backend&down=&server=x") };
        let refused = admit(&head, Some(Methods::Any));
        assert_eq!((refused.status, refused.body.as_slice()), (405, b"only GET allowed".as_slice()));
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
            ("upstream=backend&format=yaml", 400, "invalid value \"yaml\" in \"format\""),
        ];
        for (args, status, body) in table {
            let response = answer(&Call::get(args), Ok(&[]), Some(&fake())).response;
            assert_eq!(
                (response.status, String::from_utf8(response.body).unwrap()),
                (status, body.to_owned())
            );
        }
    }
}
