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

pub use replace::Replacing;

use crate::http::{BodyError, Method};
use crate::model::query::{MAX_RAW_LENGTH, Query, QueryError, quoted};
use crate::ops::{OpError, Upstreams};

use super::accept::{self, Format};
use super::call::Call;
use super::error::{Kind, Refusal};
use super::media::{FORM, is_form};
use super::respond::Answer;
use super::scope::Scope;
use super::settings::Dialect;
use super::{Settings, guard};

/// What is to be done with a request.
pub enum Start {
    /// Reply.
    Answer(Answer),
    /// Read the body first.
    ReadBody,
}

/// What is to be done with a request whose body is there.
pub enum Finish {
    /// Reply.
    Answer(Answer),
    /// Work on it first, in slices between which the worker serves others.
    Work(Box<Replacing>),
}

/// Largest body that is taken, in bytes.
pub fn body_limit(call: &Call<'_>, settings: &Settings) -> usize {
    if is_replacement(call, settings.dialect) { replace::BODY_LIMIT } else { MAX_RAW_LENGTH }
}

/// Looks at a request whose body was not read yet; `settings` are what the directive of its location says, if it has
/// one.
pub fn start(call: &Call<'_>, settings: Option<&Settings>, upstreams: Option<&dyn Upstreams>) -> Start {
    match admit(call, settings) {
        Err(refused) => Start::Answer(refused),
        Ok(_) if call.method == Method::Post => Start::ReadBody,
        Ok(settings) => Start::Answer(answer(call, Ok(&[]), upstreams, settings)),
    }
}

/// Answers a request for which [`start`] asked to read the body.
pub fn finish(
    call: &Call<'_>,
    body: Vec<u8>,
    settings: &Settings,
    upstreams: Option<&dyn Upstreams>,
) -> Finish {
    if !is_replacement(call, settings.dialect) {
        return Finish::Answer(answer(call, Ok(&body), upstreams, settings));
    }
    match replace::begin(call, body, settings.upstream.clone()) {
        Ok(work) => Finish::Work(Box::new(work)),
        Err(refusal) => Finish::Answer(Answer::refused(&refusal, likely_format(call))),
    }
}

/// Answers such a request whose body is not to be had.
pub fn without_body(
    call: &Call<'_>,
    error: BodyError,
    settings: &Settings,
    upstreams: Option<&dyn Upstreams>,
) -> Answer {
    if is_replacement(call, settings.dialect) && error == BodyError::TooLarge {
        return Answer::refused(&too_large(replace::BODY_LIMIT), likely_format(call));
    }
    answer(call, Err(error), upstreams, settings)
}

/// Whether a request asks for a replacement, whose body is a list.
fn is_replacement(call: &Call<'_>, dialect: Dialect) -> bool {
    replace::is_meant(call.args, dialect) && pools::order(call.uri, dialect).is_none()
}

/// Whether a request may go on, and the settings of its location; its body was not read yet.
fn admit<'a>(call: &Call<'_>, settings: Option<&'a Settings>) -> Result<&'a Settings, Answer> {
    let settings = settings.ok_or_else(|| Refusal::new(Kind::Internal, "location is not configured"));
    settings
        .and_then(|settings| guard::control(call, settings).map(|()| settings))
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
    let path_order = pools::order(call.uri, dialect);
    let parsed = arguments(call, body).and_then(|query| {
        let format = accept::for_control(&query, call.accept)?;
        Ok((query, format))
    });
    let (query, format) = match parsed {
        Ok(parsed) => parsed,
        Err(refusal) if path_order.is_some() => return pools::refused(&refusal, likely_format(call)),
        Err(refusal) => return Answer::refused(&refusal, likely_format(call)),
    };
    if path_order.is_none() && dialect == Dialect::Any && query.has("replace") {
        return Answer::refused(&replace::misplaced(call.method), format);
    }
    let Some(upstreams) = upstreams else {
        return Answer::refused(&Refusal::no_memory_zone(), format);
    };
    let upstreams = &Scope::new(upstreams, settings.upstream.as_deref());
    if let Some(path_order) = path_order {
        return pools::answer(call, &query, upstreams, format, &path_order, settings.host_errors);
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
        let given = call.content_type.map_or("no Content-Type".to_owned(), |given| {
            format!("unsupported Content-Type {}", quoted(given))
        });
        let text = format!("{given}, only \"{FORM}\" is understood");
        return Err(Refusal::new(Kind::UnsupportedBody, text));
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
