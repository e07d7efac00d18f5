//! From what was found out to a reply.

use std::any::Any;
use std::fmt::Display;

use serde::Serialize;

use crate::http::{Plain, Response};
use crate::model::log::Level;
use crate::ops::{OpError, Upstreams};

use super::accept::Format;
use super::error::{Kind, Refusal};

/// `Content-Type` of JSON.
const JSON: &str = "application/json";

/// `Content-Type` of text.
const TEXT: &str = "text/plain";

/// `Content-Type` of text that holds what people wrote, hence more than ASCII.
const PROSE: &str = "text/plain; charset=utf-8";

/// `Content-Type` of pages. With the charset, so that no browser guesses another one in which the text is a script.
const HTML: &str = "text/html; charset=utf-8";

/// `Content-Type` of metrics, in the version of the format that all collectors know.
const METRICS: &str = "text/plain; version=0.0.4; charset=utf-8";

/// A reply, and what the error log is told of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// The reply.
    pub response: Response,
    /// Lines for the log.
    pub log: Vec<(Level, String)>,
}

impl Answer {
    /// A reply with status 200.
    fn ok(content_type: &'static str, body: Vec<u8>) -> Self {
        Self { response: response(200, content_type, body), log: Vec::new() }
    }

    /// 200 with text.
    pub fn text(body: String) -> Self {
        Self::ok(TEXT, body.into_bytes())
    }

    /// 200 with text for people.
    pub fn prose(body: String) -> Self {
        Self::ok(PROSE, body.into_bytes())
    }

    /// 200 with JSON, as a line.
    pub fn json(body: &impl Serialize) -> Self {
        let mut answer = Self::bare_json(body);
        end_line(&mut answer.response.body);
        answer
    }

    /// 200 with JSON and nothing else, for a contract that has no line's end.
    pub fn bare_json(body: &impl Serialize) -> Self {
        match serde_json::to_vec(body) {
            Ok(body) => Self::ok(JSON, body),
            Err(error) => Self::refused(&Refusal::new(Kind::Internal, error.to_string()), Format::Text),
        }
    }

    /// 200 with JSON that is written, or the beginning of it.
    pub fn written_json(body: Vec<u8>) -> Self {
        Self::ok(JSON, body)
    }

    /// 200 with text for people, or the beginning of it.
    pub fn written_prose(body: Vec<u8>) -> Self {
        Self::ok(PROSE, body)
    }

    /// 200 with metrics, or the beginning of them.
    pub fn written_metrics(body: Vec<u8>) -> Self {
        Self::ok(METRICS, body)
    }

    /// 200 with a page, and what browsers must let it do. They tell no other site that somebody looks at it.
    pub fn page(body: String, policy: &str) -> Self {
        let mut answer = Self::ok(HTML, body.into_bytes());
        answer.response.headers.push(("Content-Security-Policy", policy.to_owned()));
        answer.response.headers.push(("Referrer-Policy", "same-origin".to_owned()));
        answer
    }

    /// A refusal. As text it is a line with its words.
    pub fn refused(refusal: &Refusal, format: Format) -> Self {
        match format {
            _ if refusal.kind == Kind::NothingToDo => Self::refused_with(refusal, TEXT, Vec::new()),
            Format::Json => Self::refused_in_json(refusal),
            Format::Text => Self::refused_in_words(refusal, format!("{}\n", refusal.text)),
        }
    }

    /// A refusal in the text of another contract.
    pub fn refused_in_words(refusal: &Refusal, body: String) -> Self {
        Self::refused_with(refusal, TEXT, body.into_bytes())
    }

    /// A refusal whose body is its words, as one JSON string.
    pub fn refused_in_a_string(refusal: &Refusal) -> Self {
        // A string: this cannot fail, and the status alone says enough.
        Self::refused_with(refusal, JSON, serde_json::to_vec(&refusal.text).unwrap_or_default())
    }

    /// A refusal as JSON.
    fn refused_in_json(refusal: &Refusal) -> Self {
        // Three plain fields: this cannot fail, and the status alone says enough.
        let mut body = serde_json::to_vec(&ErrorReply { error: refusal.into() }).unwrap_or_default();
        end_line(&mut body);
        Self::refused_with(refusal, JSON, body)
    }

    /// A refusal with any body.
    fn refused_with(refusal: &Refusal, content_type: &'static str, body: Vec<u8>) -> Self {
        let mut response = response(refusal.kind.status(), content_type, body);
        if let Some((name, value)) = refusal.kind.header() {
            response.headers.push((name, value.to_owned()));
        }
        let level = if refusal.kind.is_failure() { Level::Error } else { Level::Info };
        let line = format!("upstream control: refused with {}: {}", refusal.kind.status(), refusal.text);
        Self { response, log: vec![(level, line)] }
    }

    /// The same as a page, whose markup the caller has made; it may refresh itself and do nothing else.
    pub fn into_page(mut self, body: String) -> Self {
        self.response.content_type = HTML;
        self.response.body = body.into_bytes();
        self.response.headers.push(("Content-Security-Policy", "default-src 'none'".to_owned()));
        self
    }

    /// The same with the status of a refusal: something of what was asked for was not done.
    pub fn with_status_of(mut self, kind: Kind) -> Self {
        self.response.status = kind.status();
        self
    }

    /// The same, but the log is told only this.
    pub fn logged_instead(mut self, level: Level, line: impl Display) -> Self {
        self.log = vec![(level, line.to_string())];
        self
    }

    /// Adds a line for the log.
    pub fn logged(mut self, level: Level, line: impl Display) -> Self {
        self.log.push((level, line.to_string()));
        self
    }
}

/// The body of an error, in JSON.
#[derive(Serialize)]
struct ErrorReply<'a> {
    /// The error.
    error: ErrorBody<'a>,
}

/// An error in JSON, in the fields of the NGINX Plus API.
#[derive(Serialize)]
pub struct ErrorBody<'a> {
    /// The HTTP status.
    status: u16,
    /// The words for people.
    text: &'a str,
    /// The word for programs.
    code: &'static str,
}

impl<'a> From<&'a Refusal> for ErrorBody<'a> {
    fn from(refusal: &'a Refusal) -> Self {
        Self { status: refusal.kind.status(), text: &refusal.text, code: refusal.kind.code() }
    }
}

/// Bytes that a reply takes for a server, with all that it is made of.
const SERVER: usize = 2_048;

/// The refusal of a request for which there is no memory, not even for more words.
pub const EXHAUSTED: Plain = Plain {
    status: 503,
    content_type: TEXT,
    headers: &[("Cache-Control", "no-store"), ("X-Content-Type-Options", "nosniff"), ("Retry-After", "1")],
    body: "no memory left in the worker process, try again\n",
};

/// Keeps memory for a reply about so many servers, where it must not fail: after a change.
///
/// # Errors
///
/// There is not as much.
pub fn room(upstreams: &dyn Upstreams, servers: usize) -> Result<Box<dyn Any>, Refusal> {
    upstreams.spare(servers.saturating_mul(SERVER)).ok_or_else(|| OpError::NoMemory.into())
}

/// Ends a line, so that the prompt of a terminal does not stand behind it.
fn end_line(body: &mut Vec<u8>) {
    if body.last() != Some(&b'\n') {
        body.push(b'\n');
    }
}

/// The reply after a panic, of which the log knows more.
pub fn failed() -> Response {
    Answer::refused(&Refusal::new(Kind::Internal, "internal error"), Format::Text).response
}

/// A reply with the headers that all have: it tells of a moment, and is what its type says.
fn response(status: u16, content_type: &'static str, body: Vec<u8>) -> Response {
    let headers =
        vec![("Cache-Control", "no-store".to_owned()), ("X-Content-Type-Options", "nosniff".to_owned())];
    Response { status, content_type, headers, body }
}
