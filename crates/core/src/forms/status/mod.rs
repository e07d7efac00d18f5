//! `upstream_status`: all upstreams, or one, as JSON, as text, as metrics, or as a page that fetches the JSON. Everything
//! else is written from snapshots, piece by piece if it is long.

mod held;
mod json;
mod listing;
mod page;
mod pools;
mod prometheus;
mod text;
mod writer;

use std::collections::HashSet;

use crate::http::Pieces;
use crate::model::id::UpstreamIndex;
use crate::model::query::Query;
use crate::model::snapshot::Snapshot;
use crate::ops::{OpError, Upstreams};

use super::accept::{self, FORMAT, Format, StatusFormat};
use super::arguments::{flag, invalid, only};
use super::call::Call;
use super::error::Refusal;
use super::guard;
use super::peer::Fields;
use super::respond::Answer;

use held::Held;
use listing::{Filter, LIMIT, Listing, OFFSET, STATE};
use writer::{Form, Writer};

/// The argument that names fields of peers.
const FIELDS: &str = "fields";

/// The arguments.
const KNOWN: [&str; 7] = ["upstream", "verbose", FORMAT, FIELDS, STATE, OFFSET, LIMIT];

/// The arguments that not all forms take.
const PARTS: [&str; 4] = [FIELDS, STATE, OFFSET, LIMIT];

/// A reply, or its beginning.
pub struct Reply {
    /// The reply, with the beginning of its body.
    pub answer: Answer,
    /// The rest, if that is not all.
    pub rest: Option<Box<dyn Pieces>>,
}

impl From<Answer> for Reply {
    fn from(answer: Answer) -> Self {
        Self { answer, rest: None }
    }
}

/// The answer to a status request; `control` is where the page sends changes.
pub fn answer(call: &Call<'_>, upstreams: Option<&dyn Upstreams>, control: Option<&str>) -> Reply {
    let query = match Query::parse(call.args) {
        Ok(query) => query,
        Err(error) => return Answer::refused(&Refusal::from(error), Format::Json).into(),
    };
    match accept::for_status(&query, call.accept) {
        Ok(format) => rendered(call, &query, upstreams, control, format)
            .unwrap_or_else(|refusal| Answer::refused(&refusal, format.refusal()).into()),
        Err(refusal) => Answer::refused(&refusal, Format::Json).into(),
    }
}

/// The status, in the form that was asked for.
fn rendered(
    call: &Call<'_>,
    query: &Query,
    upstreams: Option<&dyn Upstreams>,
    control: Option<&str>,
    format: StatusFormat,
) -> Result<Reply, Refusal> {
    guard::status(call)?;
    only(query, &KNOWN)?;
    let verbose = flag(query, "verbose")?;
    fits(query, format)?;
    let choice = Filter::of(query)?;
    let fields = query.get(FIELDS).map_or(Ok(Fields::ALL), Fields::named);
    let fields = fields.map_err(|name| invalid(name, FIELDS))?;
    let upstreams = upstreams.ok_or_else(Refusal::no_memory_zone)?;
    let name = query.get("upstream");
    if format == StatusFormat::Html {
        // The page asks for the upstream by the same words, and it is better refused before it opens.
        name.map_or(Ok(()), |name| upstreams.look(name).map(drop))?;
        return Ok(Answer::page(page::page(control), page::POLICY).into());
    }
    let mut snapshots = match name {
        Some(name) => vec![upstreams.look(name)?],
        None => all(upstreams)?,
    };
    // Programs that read JSON see that there is no zone; lines and series look alike with and without one.
    if format != StatusFormat::Json {
        snapshots.iter_mut().for_each(Snapshot::forget_worker);
    }
    let listing = |snapshot| Listing::new(snapshot, choice.as_ref());
    let listings = snapshots.into_iter().map(listing).collect();
    match format {
        StatusFormat::Text => begun(text::TextForm::new(verbose, call.now), listings),
        StatusFormat::Prometheus => begun(prometheus::PrometheusForm::new(), listings),
        _ => begun(json::JsonForm::new(verbose, fields, call.now), listings),
    }
}

/// Refuses to choose fields or servers where the form has no place for it: metrics would vanish, and the page asks for
/// what it shows.
fn fits(query: &Query, format: StatusFormat) -> Result<(), Refusal> {
    let is_taken = |name: &str| match format {
        StatusFormat::Json => true,
        StatusFormat::Text => name != FIELDS,
        StatusFormat::Html | StatusFormat::Prometheus => false,
    };
    match PARTS.iter().find(|name| query.has(name) && !is_taken(name)) {
        Some(name) => Err(Refusal::argument(format!("\"{name}\" needs \"format=json\""))),
        None => Ok(()),
    }
}

/// The reply in a form, as far as the first piece has it.
fn begun<F: Form + 'static>(form: F, listings: Vec<Listing>) -> Result<Reply, Refusal> {
    let bytes = listings.iter().map(Listing::bytes).sum();
    let mut writer = Writer::new(form, listings);
    let mut body = Vec::new();
    let rest: Option<Box<dyn Pieces>> =
        if writer.next(&mut body) { Some(Box::new(Held::new(writer, bytes)?)) } else { None };
    Ok(Reply { answer: F::answer(body), rest })
}

/// All upstreams, in configuration order. Two implicit ones may have the same name; the first stands for both, since a
/// JSON object must not have a name twice.
fn all(upstreams: &dyn Upstreams) -> Result<Vec<Snapshot>, OpError> {
    let (mut names, mut all) = (HashSet::new(), Vec::new());
    for index in 0..upstreams.count() {
        match upstreams.snapshot(UpstreamIndex(index)) {
            Ok(snapshot) if names.insert(snapshot.name.clone()) => all.push(snapshot),
            // There is one of this name, or this one is not for whoever asks.
            Ok(_) | Err(OpError::UpstreamNotFound(_)) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(all)
}

#[cfg(test)]
mod tests {
    use super::super::fake::{self, Fake, fake};
    use super::super::respond::EXHAUSTED;
    use super::*;
    use crate::http::Method;

    /// Status and body of a reply.
    fn get(call: &Call<'_>, upstreams: &Fake) -> (u16, String) {
        let response = answer(call, Some(upstreams), None).answer.response;
        (response.status, crate::forms::fake::said(&response))
    }

    #[test]
    fn every_reply_has_the_headers() {
        for args in ["", "format=text", "format=html", "format=prometheus", "x=", "upstream=nope", "%"] {
            let headers = answer(&Call::get(args), Some(&fake()), None).answer.response.headers;
            assert!(headers.contains(&("Cache-Control", "no-store".to_owned())), "{args}");
            assert!(headers.contains(&("X-Content-Type-Options", "nosniff".to_owned())), "{args}");
        }
    }

    #[test]
    fn refusals() {
        let table = [
            ("upstream=nope", 404, r#"upstream is not found: \"nope\""#, "UpstreamNotFound"),
            ("upstream=", 404, "upstream is not found", "UpstreamNotFound"),
            ("verbos=", 400, r#"unknown argument \"verbos\""#, "BadArgument"),
            ("verbose=0", 400, r#"invalid value \"0\" in \"verbose\", leave it out"#, "BadArgument"),
            (
                "format=xml",
                400,
                r#"invalid value \"xml\" in \"format\", it must be \"json\" or \"text\" or \"html\" or \"prometheus\""#,
                "BadArgument",
            ),
            ("fields=id,nmae", 400, r#"invalid value \"nmae\" in \"fields\""#, "BadArgument"),
            ("fields=", 400, r#"invalid value \"\" in \"fields\""#, "BadArgument"),
            (
                "state=gone",
                400,
                r#"invalid value \"gone\" in \"state\", it must be \"up\" or \"down\" or \"draining\" or \"drain\" or \"unavail\""#,
                "BadArgument",
            ),
            ("offset=x", 400, r#"invalid value \"x\" in \"offset\""#, "BadArgument"),
            ("limit=-1", 400, r#"invalid value \"-1\" in \"limit\""#, "BadArgument"),
            ("upstream=a&upstream=b", 400, r#"duplicate argument \"upstream\""#, "BadArgument"),
        ];
        for (args, status, text, code) in table {
            let body = format!(r#"{{"error":{{"status":{status},"text":"{text}","code":"{code}"}}}}"#);
            assert_eq!(get(&Call::get(args), &fake()), (status, body), "{args}");
        }
        let refused = get(&Call::get("upstream=nope&format=text"), &fake());
        assert_eq!(refused, (404, "upstream is not found: \"nope\"".to_owned()));
    }

    #[test]
    fn parts_are_for_forms_that_have_them() {
        let table = [
            ("format=text&fields=id", "fields"),
            ("format=html&state=up", "state"),
            ("format=prometheus&limit=1", "limit"),
        ];
        for (args, name) in table {
            let text = format!("\"{name}\" needs \"format=json\"");
            assert_eq!(get(&Call::get(args), &fake()), (400, text), "{args}");
        }
        let (status, text) = get(&Call::get("format=text&upstream=backend&offset=1&limit=1"), &fake());
        assert!(status == 200 && text.contains(", 4 matched\n") && text.lines().count() == 3, "{text}");
    }

    #[test]
    fn parts_of_the_peers() {
        let (_, body) = get(&Call::get("upstream=backend&fields=name,id&state=up&offset=2"), &fake());
        assert_eq!(
            body,
            r#"{"upstreams":{"backend":{"zone":"backend_zone","method":"round_robin","dynamic":true,"revision":3,"#
                .to_owned()
                + r#""matched":4,"peers":[{"id":2,"name":"127.0.0.1:8083"},{"id":3,"name":"127.0.0.1:8084"}],"#
                + r#""zombies":0,"zone_memory":{"size":65536,"used":24576,"free":36864,"pages":{"total":15,"free":9}}}}}"#
        );
    }

    #[test]
    fn what_one_worker_saw_is_no_fact() {
        let mut peer = fake::peer(0, "a");
        (peer.active, peer.failures.fails, peer.last_failure) = (4, 1, Some(fake::NOW));
        let mut snapshot = fake::upstream("u", vec![peer]);
        snapshot.zone = None;
        let upstreams = Fake::new(vec![snapshot]);
        let (_, text) = get(&Call::get("format=text"), &upstreams);
        assert!(text.contains(" up ") && text.contains(" -/1 "), "{text}");
        let (_, text) = get(&Call::get("format=text&state=unavail"), &upstreams);
        assert!(text.contains(", 0 matched"), "{text}");
        let (_, metrics) = get(&Call::get("format=prometheus"), &upstreams);
        for line in ["peer_up{", "peer_state{", "peers{upstream=\"u\",backup=\"false\",state=\"up\"}"] {
            let found = metrics.lines().find(|found| found.starts_with(&format!("nginx_upstream_{line}")));
            assert!(found.unwrap().ends_with(" 1"), "{line}: {metrics}");
        }
        for name in ["peer_fails{", "peer_active_connections{", "peer_last_failure_timestamp_seconds{"] {
            assert!(!metrics.contains(name), "{name}");
        }
        let (_, json) = get(&Call::get(""), &upstreams);
        assert!(json.contains(r#""zone":null"#) && json.contains(r#""active":4"#), "{json}");
    }

    #[test]
    fn a_long_reply_goes_on_after_its_beginning() {
        let peers: Vec<_> = (0..1000).map(|index| fake::peer(index, &format!("10.0.0.1:{index}"))).collect();
        let upstreams = Fake::new(vec![fake::upstream("u", peers)]);
        for (format, start, end) in [
            ("json", "{\"upstreams\":", "}}}}\n"),
            ("text", "upstream", "-\n"),
            ("prometheus", "# HELP", " gauge\n"),
        ] {
            let args = format!("format={format}");
            let Reply { answer, rest } = answer(&Call::get(&args), Some(&upstreams), None);
            let (mut all, mut rest) = (answer.response.body, rest.unwrap());
            let mut piece = Vec::new();
            while rest.next(&mut piece) {
                assert!(piece.len() <= 65_536, "{} bytes of {format}", piece.len());
                all.append(&mut piece);
            }
            all.append(&mut piece);
            let all = String::from_utf8(all).unwrap();
            assert!(all.starts_with(start) && all.ends_with(end), "{format}");
            assert!(all.contains("10.0.0.1:0") && all.contains("10.0.0.1:999"), "{format}");
        }
        assert!(answer(&Call::get("limit=10"), Some(&upstreams), None).rest.is_none());
    }

    #[test]
    fn a_page_is_refused_in_words() {
        for args in ["format=html&upstream=nope", "format=prometheus&upstream=nope"] {
            assert_eq!(
                get(&Call::get(args), &fake()),
                (404, "upstream is not found: \"nope\"".to_owned()),
                "{args}"
            );
        }
        assert_eq!(get(&Call::get("format=html&upstream=backend"), &fake()).0, 200);
    }

    #[test]
    fn only_reading_methods() {
        assert_eq!(get(&Call { method: Method::Head, ..Call::get("") }, &fake()).0, 200);
        let refused =
            answer(&Call { method: Method::Post, ..Call::get("") }, Some(&fake()), None).answer.response;
        assert_eq!(refused.status, 405);
        assert!(refused.headers.contains(&("Allow", "GET, HEAD".to_owned())));
    }

    #[test]
    fn without_memory_for_a_look() {
        let mut upstreams = fake();
        upstreams.no_memory = true;
        for args in ["format=text", "format=text&upstream=backend"] {
            let response = answer(&Call::get(args), Some(&upstreams), None).answer.response;
            let words = "no memory left in the worker process, try again\n";
            assert_eq!((response.status, response.body.as_slice()), (503, words.as_bytes()), "{args}");
            assert!(response.headers.contains(&("Retry-After", "1".to_owned())), "{args}");
            // The words for want of which nothing was made are the same.
            assert_eq!((EXHAUSTED.status, EXHAUSTED.body), (503, words));
            let plain = EXHAUSTED.headers.iter().map(|(name, value)| (*name, (*value).to_owned()));
            assert_eq!(response.headers, plain.collect::<Vec<_>>());
        }
    }

    #[test]
    fn without_shared_memory() {
        let response = answer(&Call::get("format=text"), None, None).answer.response;
        assert_eq!((response.status, response.body.as_slice()), (500, b"no shared memory\n".as_slice()));
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
