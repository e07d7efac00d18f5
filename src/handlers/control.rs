//! The edge of `upstream_control` and `upstream_conf`.

use std::time::{Duration, Instant};

use crate::forms::control::{self, Pending, Replacing, Start};
use crate::forms::{EXHAUSTED, failed};
use crate::http::{BodyError, Plain, Response};
use crate::nginx::http::{Finish, Handler, Request, Step, Work};
use crate::nginx::memory;

use super::edge::{call, deliver, settings, upstreams};

/// How long a slice of work takes, at most. A proxied request has several events, and each of them may have to wait for
/// a slice.
const SLICE: Duration = Duration::from_millis(2);

/// The handler.
pub struct Control;

impl Handler for Control {
    fn start(request: &Request<'_>) -> Step {
        match control::start(&call(request), settings(request), upstreams(request)) {
            Start::Answer(answer) => Step::Reply(deliver(answer, request)),
            Start::ReadBody { limit, pending } => {
                let then = Box::new(|request: &Request<'_>, body| finish(request, body, pending));
                Step::ReadBody { limit, then }
            }
        }
    }

    fn failed() -> Response {
        failed()
    }

    fn exhausted() -> Plain {
        EXHAUSTED
    }
}

/// Goes on with a request whose body is there, or is not to be had.
fn finish(request: &Request<'_>, body: Result<Vec<u8>, BodyError>, pending: Pending) -> Finish {
    match pending.finish(&call(request), body, upstreams(request)) {
        control::Finish::Answer(answer) => Finish::Reply(deliver(answer, request)),
        control::Finish::Work(work) => Finish::Work(work),
    }
}

impl Work for Replacing {
    fn slice(&mut self, request: &Request<'_>) -> Option<Response> {
        let end = Instant::now() + SLICE;
        let answer = self.advance(upstreams(request), || Instant::now() >= end || !memory::is_left())?;
        Some(deliver(answer, request))
    }
}
