//! `upstream_status`: all upstreams, or one, as JSON, as text, as metrics, or as a page that fetches the JSON. Everything
//! else is rendered from snapshots.

mod json;
mod page;
mod prometheus;
mod text;

use std::collections::HashSet;

use crate::model::id::UpstreamIndex;
use crate::model::query::Query;
use crate::model::snapshot::Snapshot;
use crate::nginx::http::{BodyError, Finish, Handler, Request, Response, Step};
use crate::ops::{OpError, Upstreams};

use super::accept::{self, FORMAT, Format, StatusFormat};
use super::arguments::{flag, only};
use super::call::Call;
use super::error::Refusal;
use super::respond::{self, Answer};
use super::{Context, Settings, guard};

/// The arguments.
const KNOWN: [&str; 3] = ["upstream", "verbose", FORMAT];

/// The handler.
pub struct Status;

impl Handler for Status {
    fn body_limit(_request: &Request<'_>) -> usize {
        0
    }

    fn start(request: &Request<'_>) -> Step {
        // SAFETY: the module's main configuration begins with a `Context`, by the duty of the entry function's caller.
        let context = unsafe { request.main_conf::<Context>() };
        let upstreams = context.and_then(|context| context.upstreams.as_deref());
        // SAFETY: the same of the location's configuration and a `Settings`.
        let settings = unsafe { request.loc_conf::<Settings>() };
        let control = settings.and_then(|settings| settings.control.as_deref());
        Step::Reply(answer(&Call::of(request), upstreams, control).deliver(request))
    }

    fn finish(_request: &Request<'_>, _body: Vec<u8>) -> Finish {
        // Never called, as `start` does not ask for the body.
        Finish::Reply(respond::failed())
    }

    fn without_body(_request: &Request<'_>, _error: BodyError) -> Response {
        // Nor this.
        respond::failed()
    }

    fn failed() -> Response {
        respond::failed()
    }
}

/// The answer to a status request; `control` is where the page sends changes.
fn answer(call: &Call<'_>, upstreams: Option<&dyn Upstreams>, control: Option<&str>) -> Answer {
    let query = match Query::parse(call.args) {
        Ok(query) => query,
        Err(error) => return Answer::refused(&Refusal::from(error), Format::Json),
    };
    match accept::for_status(&query, call.accept) {
        Ok(format) => rendered(call, &query, upstreams, control, format)
            .unwrap_or_else(|refusal| Answer::refused(&refusal, format.refusal())),
        Err(refusal) => Answer::refused(&refusal, Format::Json),
    }
}

/// The status, in the form that was asked for.
fn rendered(
    call: &Call<'_>,
    query: &Query,
    upstreams: Option<&dyn Upstreams>,
    control: Option<&str>,
    format: StatusFormat,
) -> Result<Answer, Refusal> {
    guard::status(call)?;
    only(query, &KNOWN)?;
    let verbose = flag(query, "verbose")?;
    let upstreams = upstreams.ok_or_else(Refusal::no_memory_zone)?;
    let name = query.get("upstream");
    if format == StatusFormat::Html {
        // The page asks for the upstream by the same words, and it is better refused before it opens.
        name.map_or(Ok(()), |name| one(upstreams, name).map(drop))?;
        return Ok(Answer::page(page::page(control), page::POLICY));
    }
    let snapshots = match name {
        Some(name) => vec![one(upstreams, name)?],
        None => all(upstreams),
    };
    Ok(match format {
        StatusFormat::Text => Answer::prose(text::page(&snapshots, verbose, call.now)),
        StatusFormat::Prometheus => Answer::metrics(prometheus::metrics(&snapshots, call.now)),
        _ => Answer::json(&json::StatusView::new(&snapshots, verbose, call.now)),
    })
}

/// The upstream with this name, or with a zone of this name.
fn one(upstreams: &dyn Upstreams, name: &str) -> Result<Snapshot, Refusal> {
    let found = upstreams.find(name).and_then(|index| upstreams.snapshot(index));
    found.ok_or_else(|| OpError::UpstreamNotFound(name.to_owned()).into())
}

/// All upstreams, in configuration order. Two implicit ones may have the same name; the first stands for both, since a
/// JSON object must not have a name twice.
fn all(upstreams: &dyn Upstreams) -> Vec<Snapshot> {
    let mut names = HashSet::new();
    let snapshots = (0..upstreams.count()).filter_map(|index| upstreams.snapshot(UpstreamIndex(index)));
    snapshots.filter(|snapshot| names.insert(snapshot.name.clone())).collect()
}

#[cfg(test)]
mod tests {
    use super::super::fake::{self, Fake, fake};
    use super::*;
    use crate::nginx::http::Method;

    /// Status and body of a reply.
    fn get(call: &Call<'_>, upstreams: &Fake) -> (u16, String) {
        let response = answer(call, Some(upstreams), None).response;
        (response.status, String::from_utf8(response.body).unwrap())
    }

    #[test]
    fn every_reply_has_the_headers() {
        for args in ["", "format=text", "format=html", "format=prometheus", "x=", "upstream=nope", "%"] {
            let headers = answer(&Call::get(args), Some(&fake()), None).response.headers;
            assert!(headers.contains(&("Cache-Control", "no-store".to_owned())), "{args}");
            assert!(headers.contains(&("X-Content-Type-Options", "nosniff".to_owned())), "{args}");
        }
    }

    #[test]
    fn refusals() {
        let table = [
            ("upstream=nope", 404, "upstream is not found", "UpstreamNotFound"),
            ("upstream=", 404, "upstream is not found", "UpstreamNotFound"),
            ("verbos=", 400, r#"unknown argument \"verbos\""#, "BadArgument"),
            ("verbose=0", 400, r#"invalid value \"0\" in \"verbose\""#, "BadArgument"),
            ("format=xml", 400, r#"invalid value \"xml\" in \"format\""#, "BadArgument"),
            ("upstream=a&upstream=b", 400, r#"duplicate argument \"upstream\""#, "BadArgument"),
        ];
        for (args, status, text, code) in table {
            let body = format!(r#"{{"error":{{"status":{status},"text":"{text}","code":"{code}"}}}}"#);
            assert_eq!(get(&Call::get(args), &fake()), (status, body), "{args}");
        }
        let refused = get(&Call::get("upstream=nope&format=text"), &fake());
        assert_eq!(refused, (404, "upstream is not found".to_owned()));
    }

    #[test]
    fn a_page_is_refused_in_words() {
        for args in ["format=html&upstream=nope", "format=prometheus&upstream=nope"] {
            assert_eq!(get(&Call::get(args), &fake()), (404, "upstream is not found".to_owned()), "{args}");
        }
        assert_eq!(get(&Call::get("format=html&upstream=backend"), &fake()).0, 200);
    }

    #[test]
    fn only_reading_methods() {
        assert_eq!(get(&Call { method: Method::Head, ..Call::get("") }, &fake()).0, 200);
        let refused = answer(&Call { method: Method::Post, ..Call::get("") }, Some(&fake()), None).response;
        assert_eq!(refused.status, 405);
        assert!(refused.headers.contains(&("Allow", "GET, HEAD".to_owned())));
    }

    #[test]
    fn without_shared_memory() {
        let response = answer(&Call::get("format=text"), None, None).response;
        assert_eq!((response.status, response.body.as_slice()), (500, b"no shared memory".as_slice()));
    }

    #[test]
    fn one_upstream_by_its_name_or_its_zone() {
        for name in ["backend", "backend_zone"] {
            let (status, body) = get(&Call::get(&format!("upstream={name}")), &fake());
            assert_eq!(status, 200);
            assert!(body.starts_with(r#"{"upstreams":{"backend":{"zone":"backend_zone","#), "{body}");
            assert!(!body.contains("fixed"));
        }
    }

    #[test]
    fn a_name_is_shown_once() {
        let upstreams = Fake::new(vec![
            fake::upstream("a", vec![fake::peer(0, "first")]),
            fake::upstream("a", vec![fake::peer(0, "second")]),
        ]);
        let (_, body) = get(&Call::get(""), &upstreams);
        assert!(body.contains("first") && !body.contains("second"));
    }

    #[test]
    fn no_upstreams_at_all() {
        assert_eq!(get(&Call::get(""), &Fake::new(Vec::new())), (200, r#"{"upstreams":{}}"#.to_owned()));
    }
}
