//! `upstream_control`: changes servers, in the forms of the programs that did this before.
//!
//! | request | form |
//! |---|---|
//! | a path that ends in `/pools`, `/down_host/POOL/HOST` or `/up_host/POOL/HOST`, whatever the arguments | [`pools`] |
//! | `stream=NAME` without `upstream=` | [`eblb`] |
//! | `upstream=*` | [`everywhere`] |
//! | `replace=` in the query string | [`replace`], with a list of servers in the body |
//! | `upstream=` with `id=` | [`dynamic`], but the reply is in the lines of `upstream_conf` |
//! | others | [`dynamic`] |
//!
//! `upstream_conf` is the same handler, which takes all requests for those of NGINX Plus's directive of that name.

mod change;
mod dynamic;
mod eblb;
mod everywhere;
mod json;
mod lines;
pub mod log;
mod order;
mod pools;
mod replace;
#[cfg(test)]
mod tests;
mod words;

use crate::model::query::{MAX_RAW_LENGTH, Query, QueryError};
use crate::nginx::http::{BodyError, Finish, Handler, Method, Plain, Request, Response, Step};
use crate::ops::{OpError, Upstreams};

use super::accept::{self, Format};
use super::call::Call;
use super::error::{Kind, Refusal};
use super::respond::{self, Answer};
use super::scope::Scope;
use super::settings::Dialect;
use super::{Context, Settings, guard};

/// The media type of a form.
const FORM: &str = "application/x-www-form-urlencoded";

/// The handler.
pub struct Control;

impl Handler for Control {
    fn body_limit(request: &Request<'_>) -> usize {
        if is_replacement(&Call::of(request), settings(request).dialect) {
            replace::BODY_LIMIT
        } else {
            MAX_RAW_LENGTH
        }
    }

    fn start(request: &Request<'_>) -> Step {
        let call = Call::of(request);
        match admit(&call, configured(request)) {
            Err(refused) => Step::Reply(refused.deliver(request)),
            Ok(_) if call.method == Method::Post => Step::ReadBody,
            Ok(settings) => {
                Step::Reply(answer(&call, Ok(&[]), upstreams(request), &settings).deliver(request))
            }
        }
    }

    fn finish(request: &Request<'_>, body: Vec<u8>) -> Finish {
        let (call, settings) = (Call::of(request), settings(request));
        if !is_replacement(&call, settings.dialect) {
            return Finish::Reply(answer(&call, Ok(&body), upstreams(request), &settings).deliver(request));
        }
        match replace::begin(&call, body, settings.upstream) {
            Ok(work) => Finish::Work(Box::new(work)),
            Err(refusal) => Finish::Reply(Answer::refused(&refusal, likely_format(&call)).deliver(request)),
        }
    }

    fn without_body(request: &Request<'_>, error: BodyError) -> Response {
        let (call, settings) = (Call::of(request), settings(request));
        if is_replacement(&call, settings.dialect) && error == BodyError::TooLarge {
            let refusal = too_large(replace::BODY_LIMIT);
            return Answer::refused(&refusal, likely_format(&call)).deliver(request);
        }
        answer(&call, Err(error), upstreams(request), &settings).deliver(request)
    }

    fn failed() -> Response {
        respond::failed()
    }

    fn exhausted() -> Plain {
        respond::EXHAUSTED
    }
}

/// What the directive of the location says, if it has one.
fn configured(request: &Request<'_>) -> Option<Settings> {
    // SAFETY: the module's location configuration begins with a `Settings`, by the duty of the entry function's caller.
    unsafe { request.loc_conf::<Settings>() }.cloned()
}

/// The same of a request that was admitted, so that it has one.
fn settings(request: &Request<'_>) -> Settings {
    configured(request).unwrap_or_default()
}

/// Whether a request asks for a replacement, whose body is a list.
fn is_replacement(call: &Call<'_>, dialect: Dialect) -> bool {
    replace::is_meant(call.args, dialect) && pools::wish(call.uri, dialect).is_none()
}

/// The upstreams of the http block.
fn upstreams<'a>(request: &'a Request<'_>) -> Option<&'a dyn Upstreams> {
    // SAFETY: the module's main configuration begins with a `Context`, by the duty of the entry function's caller.
    let context = unsafe { request.main_conf::<Context>() };
    context.and_then(|context| context.upstreams.as_deref())
}

/// Whether a request may go on, and the settings of its location; its body was not read yet.
fn admit(call: &Call<'_>, settings: Option<Settings>) -> Result<Settings, Answer> {
    let settings = settings.ok_or_else(|| Refusal::new(Kind::Internal, "location is not configured"));
    settings
        .and_then(|settings| guard::control(call, settings.methods).map(|()| settings))
        .map_err(|refusal| Answer::refused(&refusal, likely_format(call)))
}

/// The answer to a request that may go on.
fn answer(
    call: &Call<'_>,
    body: Result<&[u8], BodyError>,
    upstreams: Option<&dyn Upstreams>,
    settings: &Settings,
) -> Answer {
    let dialect = settings.dialect;
    let wish = pools::wish(call.uri, dialect);
    let parsed = arguments(call, body).and_then(|query| {
        let format = accept::for_control(&query, call.accept)?;
        Ok((query, format))
    });
    let (query, format) = match parsed {
        Ok(parsed) => parsed,
        Err(refusal) if wish.is_some() => return pools::refused(&refusal, likely_format(call)),
        Err(refusal) => return Answer::refused(&refusal, likely_format(call)),
    };
    if wish.is_none() && dialect == Dialect::Any && query.has("replace") {
        return Answer::refused(&replace::misplaced(call.method), format);
    }
    let Some(upstreams) = upstreams else {
        return Answer::refused(&Refusal::no_memory_zone(), format);
    };
    let upstreams = &Scope::new(upstreams, settings.upstream.as_deref());
    if let Some(wish) = wish {
        return pools::answer(call, &query, upstreams, format, &wish, settings.host_errors);
    }
    if dialect == Dialect::Any && !query.has("upstream") && words::given(&query, "stream").is_some() {
        return eblb::answer(call, &query, upstreams, format);
    }
    dynamic::answer(call, &query, upstreams, format, dialect)
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
        BodyError::TooLarge => too_large(MAX_RAW_LENGTH),
        BodyError::NoMemory => OpError::NoMemory.into(),
        BodyError::Unreadable => Refusal::new(Kind::Internal, "request body cannot be read"),
    })?;
    if body.is_empty() {
        return Ok(query);
    }
    if !is_form(call.content_type) {
        return Err(Refusal::new(Kind::UnsupportedBody, format!("only \"{FORM}\" is understood")));
    }
    query.extend(body).map_err(|error| match error {
        QueryError::TooLong => too_large(MAX_RAW_LENGTH),
        error => error.into(),
    })?;
    Ok(query)
}

/// The refusal of a body that is larger than the limit.
fn too_large(limit: usize) -> Refusal {
    Refusal::new(Kind::BodyTooLarge, format!("request body is larger than {limit} bytes"))
}

/// Whether `Content-Type` names a form.
fn is_form(content_type: Option<&[u8]>) -> bool {
    is_media(content_type, FORM)
}

/// Whether `Content-Type` names this media type.
fn is_media(content_type: Option<&[u8]>, media: &str) -> bool {
    let essence = content_type.and_then(|value| value.split(|byte| *byte == b';').next());
    essence.is_some_and(|essence| essence.trim_ascii().eq_ignore_ascii_case(media.as_bytes()))
}
