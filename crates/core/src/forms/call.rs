//! A request as the handlers see it.

use crate::http::Method;
use crate::model::time::UnixTime;

/// What the handlers look at in a request: no more than this, so that a test can write it down.
#[derive(Clone, Debug)]
pub struct Call<'a> {
    /// The method.
    pub method: Method,
    /// Whether nginx itself made the request for a part of another one.
    pub is_subrequest: bool,
    /// The path that was asked for, decoded, after rewrites.
    pub uri: &'a [u8],
    /// What follows the `?`, as it came.
    pub args: &'a [u8],
    /// The host that was asked for, as the client wrote it.
    pub host: &'a [u8],
    /// `Accept`.
    pub accept: Option<&'a [u8]>,
    /// `Content-Type` of the body.
    pub content_type: Option<&'a [u8]>,
    /// `Origin`: the site whose page made a browser send this.
    pub origin: Option<&'a [u8]>,
    /// `Sec-Fetch-Site`: what a browser says of that site.
    pub fetch_site: Option<&'a [u8]>,
    /// Address of the client.
    pub client: String,
    /// When the request is handled.
    pub now: UnixTime,
    /// Whether the log takes notices: lines that it does not take need not be made.
    pub notices: bool,
}

#[cfg(any(test, feature = "fake"))]
impl<'a> Call<'a> {
    /// A `GET` by curl, for tests.
    pub fn get(args: &'a str) -> Self {
        Self {
            method: Method::Get,
            is_subrequest: false,
            uri: b"/upstreamcontrol",
            args: args.as_bytes(),
            host: b"localhost",
            accept: Some(b"*/*"),
            content_type: None,
            origin: None,
            fetch_site: None,
            client: "127.0.0.1".to_owned(),
            now: super::fake::NOW,
            notices: true,
        }
    }
}
