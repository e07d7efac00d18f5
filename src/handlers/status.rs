//! The edge of `upstream_status`.

use crate::forms::status::{self, Reply};
use crate::forms::{EXHAUSTED, failed};
use crate::http::{Plain, Response};
use crate::nginx::http::{Handler, Request, Step};

use super::edge::{call, deliver, settings, upstreams};

/// The handler.
pub struct Status;

impl Handler for Status {
    fn start(request: &Request<'_>) -> Step {
        let control = settings(request).and_then(|settings| settings.control.as_deref());
        let Reply { answer, rest } = status::answer(&call(request), upstreams(request), control);
        let response = deliver(answer, request);
        match rest {
            Some(rest) => Step::Stream(response, rest),
            None => Step::Reply(response),
        }
    }

    fn failed() -> Response {
        failed()
    }

    fn exhausted() -> Plain {
        EXHAUSTED
    }
}
