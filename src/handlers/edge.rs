//! Between nginx's requests and the core's: what both handlers read of a request, and how an answer becomes a reply.

use crate::forms::{Answer, Call, Settings};
use crate::http::Response;
use crate::model::client::Client;
use crate::model::log::Level;
use crate::nginx::http::Request;
use crate::ops::Upstreams;

use super::context::Context;

/// The call that a request is.
pub fn call<'a>(request: &'a Request<'_>) -> Call<'a> {
    Call {
        method: request.method(),
        is_subrequest: request.is_subrequest(),
        is_of_proxied_reply: request.is_of_proxied_reply(),
        uri: request.uri(),
        args: request.args(),
        host: request.host(),
        server: request.server(),
        accept: request.header("accept"),
        content_type: request.header("content-type"),
        origin: request.header("origin"),
        fetch_site: request.header("sec-fetch-site"),
        referer: request.header("referer"),
        user_agent: request.header("user-agent"),
        permit: request.header("x-upstream-control"),
        client: Client { address: request.client(), user: request.checked_user() },
        now: request.now(),
        notices: request.log().is_some_and(|log| log.takes(Level::Notice)),
    }
}

/// The upstreams of the http block.
pub fn upstreams<'a>(request: &'a Request<'_>) -> Option<&'a dyn Upstreams> {
    // SAFETY: the module's main configuration begins with a `Context`, by the duty of the entry function's caller.
    let context = unsafe { request.main_conf::<Context>() };
    context.and_then(|context| context.upstreams.as_deref())
}

/// What the directive of the location says, if it has one.
pub fn settings<'a>(request: &'a Request<'_>) -> Option<&'a Settings> {
    // SAFETY: the module's location configuration begins with a `Settings`, by the duty of the entry function's caller.
    unsafe { request.loc_conf::<Settings>() }
}

/// Writes to the log and gives the reply.
pub fn deliver(answer: Answer, request: &Request<'_>) -> Response {
    if let Some(log) = request.log() {
        for (level, line) in &answer.log {
            log.write(*level, line);
        }
    }
    answer.response
}
