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
use super::settings::{Dialect, HostErrors};
use super::{Settings, guard};

/// What is to be done with a request.
pub enum Start {
    /// Reply.
    Answer(Answer),
    /// Read the body first.
    ReadBody {
        /// Largest body that is taken, in bytes.
        limit: usize,
        /// What was read of the request already.
        pending: Pending,
    },
}

/// What is to be done with a request whose body is there.
pub enum Finish {
    /// Reply.
    Answer(Answer),
    /// Work on it first, in slices between which the worker serves others.
    Work(Box<Replacing>),
}

/// A request that may go on, and may wait for its body: what was read of it, and of the settings of its location.
pub struct Pending {
    /// The arguments in the query string.
    query: Query,
    /// What the path asks of pools; none if it does not.
    path_order: Option<pools::PathOrder>,
    /// Whether it is a replacement, whose body is a list.
    is_replacement: bool,
    /// Whose requests the location takes.
    dialect: Dialect,
    /// The status of errors about pools.
    host_errors: HostErrors,
    /// The only upstream, beside its pools, that the location knows; none if it knows all.
    scope: Option<String>,
}

/// Looks at a request whose body was not read yet; `settings` are what the directive of its location says, if it has
/// one.
pub fn start(call: &Call<'_>, settings: Option<&Settings>, upstreams: Option<&dyn Upstreams>) -> Start {
    let pending = admit(call, settings).and_then(|settings| Pending::new(call, settings));
    match pending {
        Err(refused) => Start::Answer(refused),
        Ok(pending) if call.method == Method::Post => Start::ReadBody { limit: pending.limit(), pending },
        Ok(pending) => Start::Answer(pending.answer(call, Ok(&[]), upstreams)),
    }
}

/// Whether a request may go on, and the settings of its location; its body was not read yet.
fn admit<'a>(call: &Call<'_>, settings: Option<&'a Settings>) -> Result<&'a Settings, Answer> {
    let settings = settings.ok_or_else(|| Refusal::new(Kind::Internal, "location is not configured"));
    settings
        .and_then(|settings| guard::control(call, settings).map(|()| settings))
        .map_err(|refusal| Answer::refused(&refusal, likely_format(call)))
}

impl Pending {
    /// Reads what there is without a body. The error is the answer, if that cannot be read.
    fn new(call: &Call<'_>, settings: &Settings) -> Result<Self, Answer> {
        let Settings { dialect, host_errors, .. } = *settings;
        let path_order = pools::order(call.uri, dialect);
        let query = match Query::parse(call.args) {
            Ok(query) => query,
            Err(error) => {
                return Err(refused(&error.into(), path_order.as_ref(), accept::by_header(call.accept)));
            }
        };
        let is_replacement = replace::is_meant(&query, dialect) && path_order.is_none();
        Ok(Self { query, path_order, is_replacement, dialect, host_errors, scope: settings.upstream.clone() })
    }

    /// Largest body that is taken, in bytes.
    fn limit(&self) -> usize {
        if self.is_replacement { replace::BODY_LIMIT } else { MAX_RAW_LENGTH }
    }

    /// The form for a refusal of what the body says.
    fn likely_format(&self, call: &Call<'_>) -> Format {
        accept::for_control(&self.query, call.accept).unwrap_or_else(|_| accept::by_header(call.accept))
    }

    /// Answers the request, whose body is there, or is not to be had.
    pub fn finish(
        self,
        call: &Call<'_>,
        body: Result<Vec<u8>, BodyError>,
        upstreams: Option<&dyn Upstreams>,
    ) -> Finish {
        if !self.is_replacement {
            let body = body.as_deref().map_err(|error| *error);
            return Finish::Answer(self.answer(call, body, upstreams));
        }
        let likely = self.likely_format(call);
        let begun = body
            .map_err(|error| lost(error, replace::BODY_LIMIT))
            .and_then(|body| replace::begin(call, &self.query, body, self.scope));
        match begun {
            Ok(work) => Finish::Work(Box::new(work)),
            Err(refusal) => Finish::Answer(Answer::refused(&refusal, likely)),
        }
    }

    /// The answer to anything but a replacement.
    fn answer(
        self,
        call: &Call<'_>,
        body: Result<&[u8], BodyError>,
        upstreams: Option<&dyn Upstreams>,
    ) -> Answer {
        let likely = self.likely_format(call);
        let Self { query, path_order, dialect, host_errors, scope, .. } = self;
        let read = with_body(query, call, body).and_then(|query| {
            let format = accept::for_control(&query, call.accept)?;
            Ok((query, format))
        });
        let (query, format) = match read {
            Ok(read) => read,
            Err(refusal) => return refused(&refusal, path_order.as_ref(), likely),
        };
        if path_order.is_none() && replace::is_meant(&query, dialect) {
            return Answer::refused(&replace::misplaced(call.method), format);
        }
        let Some(upstreams) = upstreams else {
            return Answer::refused(&Refusal::no_memory_zone(), format);
        };
        let upstreams = &Scope::new(upstreams, scope.as_deref());
        if let Some(path_order) = path_order {
            return pools::answer(call, &query, upstreams, format, &path_order, host_errors);
        }
        if dialect == Dialect::Any && !query.has("upstream") && words::given(&query, "stream").is_some() {
            return eblb::answer(call, &query, upstreams, format);
        }
        dynamic::answer(call, &query, upstreams, format, dialect)
            .unwrap_or_else(|refusal| Answer::refused(&refusal, format))
    }
}

/// The answer to a request that may go on, with this body.
#[cfg(test)]
fn answer(
    call: &Call<'_>,
    body: Result<&[u8], BodyError>,
    upstreams: Option<&dyn Upstreams>,
    settings: &Settings,
) -> Answer {
    Pending::new(call, settings)
        .map_or_else(|refused| refused, |pending| pending.answer(call, body, upstreams))
}

/// The answer to a request whose arguments cannot be read.
fn refused(refusal: &Refusal, path_order: Option<&pools::PathOrder>, format: Format) -> Answer {
    match path_order {
        Some(_) => pools::refused(refusal, format),
        None => Answer::refused(refusal, format),
    }
}

/// The form for a refusal whose arguments may be unreadable.
fn likely_format(call: &Call<'_>) -> Format {
    let query = Query::parse(call.args).unwrap_or_default();
    accept::for_control(&query, call.accept).unwrap_or_else(|_| accept::by_header(call.accept))
}

/// The arguments in the query string, and those in a form.
fn with_body(mut query: Query, call: &Call<'_>, body: Result<&[u8], BodyError>) -> Result<Query, Refusal> {
    let body = body.map_err(|error| lost(error, MAX_RAW_LENGTH))?;
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

/// The refusal of a body that is not to be had, or is larger than the limit.
fn lost(error: BodyError, limit: usize) -> Refusal {
    match error {
        BodyError::TooLarge => too_large(limit),
        BodyError::NoMemory => OpError::NoMemory.into(),
        BodyError::Unreadable => Refusal::new(Kind::Internal, "request body cannot be read"),
    }
}

/// The refusal of a body that is larger than the limit.
fn too_large(limit: usize) -> Refusal {
    Refusal::new(Kind::BodyTooLarge, format!("request body is larger than {limit} bytes"))
}
