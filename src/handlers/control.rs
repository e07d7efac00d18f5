//! The edge of `upstream_control` and `upstream_conf`.

use std::time::{Duration, Instant};

use crate::forms::control::{self, Replacing, Start};
use crate::forms::{EXHAUSTED, Settings, failed};
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
    fn body_limit(request: &Request<'_>) -> usize {
        control::body_limit(&call(request), &admitted(request))
    }

    fn start(request: &Request<'_>) -> Step {
        match control::start(&call(request), settings(request), upstreams(request)) {
            Start::Answer(answer) => Step::Reply(deliver(answer, request)),
            Start::ReadBody => Step::ReadBody,
        }
    }

    fn finish(request: &Request<'_>, body: Vec<u8>) -> Finish {
        match control::finish(&call(request), body, &admitted(request), upstreams(request)) {
            control::Finish::Answer(answer) => Finish::Reply(deliver(answer, request)),
            control::Finish::Work(work) => Finish::Work(work),
        }
    }

    fn without_body(request: &Request<'_>, error: BodyError) -> Response {
        let answer = control::without_body(&call(request), error, &admitted(request), upstreams(request));
        deliver(answer, request)
    }

    fn failed() -> Response {
        failed()
    }

    fn exhausted() -> Plain {
        EXHAUSTED
    }
}

/// The settings of the location of a request that was admitted, so that it has some.
fn admitted(request: &Request<'_>) -> Settings {
    settings(request).cloned().unwrap_or_default()
}

impl Work for Replacing {
    fn slice(&mut self, request: &Request<'_>) -> Option<Response> {
        let end = Instant::now() + SLICE;
        let answer = self.advance(upstreams(request), || Instant::now() >= end || !memory::is_left())?;
        Some(deliver(answer, request))
    }
}
