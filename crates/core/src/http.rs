//! Requests and replies of HTTP, as far as the handlers tell them apart.

/// Method of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Method {
    /// `GET`.
    Get,
    /// `HEAD`.
    Head,
    /// `POST`.
    Post,
    /// `PUT`.
    Put,
    /// `PATCH`.
    Patch,
    /// `DELETE`.
    Delete,
    /// Any other.
    Other,
}

/// Why there is no body to look at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BodyError {
    /// It is longer than the limit.
    TooLarge,
    /// It could not be read from the file that nginx put it into.
    Unreadable,
    /// There is no memory for it.
    NoMemory,
}

/// A reply.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Response {
    /// The HTTP status.
    pub status: u16,
    /// `Content-Type`.
    pub content_type: &'static str,
    /// Names and values of other headers; values must not hold line breaks.
    pub headers: Vec<(&'static str, String)>,
    /// The body, may be empty. It is not sent to `HEAD`.
    pub body: Vec<u8>,
}

/// A reply that takes no memory of the heap.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Plain {
    /// The HTTP status.
    pub status: u16,
    /// `Content-Type`.
    pub content_type: &'static str,
    /// Names and values of other headers.
    pub headers: &'static [(&'static str, &'static str)],
    /// The body.
    pub body: &'static str,
}

/// The rest of a body.
pub trait Pieces {
    /// Writes the next piece, of about 64k at most, into an empty buffer. False if it was the last; it alone may be
    /// empty.
    fn next(&mut self, piece: &mut Vec<u8>) -> bool;
}
