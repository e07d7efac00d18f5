//! The edge of `upstream_status`.

use crate::forms::status::{self, Reply};
use crate::forms::{EXHAUSTED, failed};
use crate::http::{BodyError, Plain, Response};
use crate::nginx::http::{Finish, Handler, Request, Step};

use super::edge::{call, deliver, settings, upstreams};

/// The handler.
pub struct Status;

impl Handler for Status {
    fn body_limit(_request: &Request<'_>) -> usize {
        0
    }

    fn start(request: &Request<'_>) -> Step {
        let control = settings(request).and_then(|settings| settings.control.as_deref());
        let Reply { answer, rest } = status::answer(&call(request), upstreams(request), control);
        let response = deliver(answer, request);
        match rest {
            Some(rest) => Step::Stream(response, rest),
            None => Step::Reply(response),
        }
    }

    fn finish(_request: &Request<'_>, _body: Vec<u8>) -> Finish {
        // Never called, as `start` does not ask for the body.
        Finish::Reply(failed())
    }

    fn without_body(_request: &Request<'_>, _error: BodyError) -> Response {
        // Nor this.
        failed()
    }

    fn failed() -> Response {
        failed()
    }

    fn exhausted() -> Plain {
        EXHAUSTED
    }
}
