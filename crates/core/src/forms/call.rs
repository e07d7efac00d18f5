//! A request as the handlers see it.

use crate::http::Method;
use crate::model::client::Client;
use crate::model::time::UnixTime;

/// What the handlers look at in a request: no more than this, so that a test can write it down.
#[derive(Clone, Debug)]
pub struct Call<'a> {
    /// The method.
    pub method: Method,
    /// Whether nginx itself made the request for a part of another one.
    pub is_subrequest: bool,
    /// Whether the reply of a proxied server led here.
    pub is_of_proxied_reply: bool,
    /// The path that was asked for, decoded, after rewrites.
    pub uri: &'a [u8],
    /// What follows the `?`, as it came.
    pub args: &'a [u8],
    /// The host that was asked for, as the client wrote it.
    pub host: &'a [u8],
    /// The same in small letters, without port and without a dot at its end.
    pub server: &'a [u8],
    /// `Accept`.
    pub accept: Option<&'a [u8]>,
    /// `Content-Type` of the body.
    pub content_type: Option<&'a [u8]>,
    /// `Origin`: the site whose page made a browser send this.
    pub origin: Option<&'a [u8]>,
    /// `Sec-Fetch-Site`: what a browser says of that site.
    pub fetch_site: Option<&'a [u8]>,
    /// `Referer`: the page that did.
    pub referer: Option<&'a [u8]>,
    /// `User-Agent`.
    pub user_agent: Option<&'a [u8]>,
    /// `X-Upstream-Control`: a client's word that it means this.
    pub permit: Option<&'a [u8]>,
    /// Who sent it.
    pub client: Client,
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
            is_of_proxied_reply: false,
            uri: b"/upstreamcontrol",
            args: args.as_bytes(),
            host: b"localhost",
            server: b"localhost",
            accept: Some(b"*/*"),
            content_type: None,
            origin: None,
            fetch_site: None,
            referer: None,
            user_agent: None,
            permit: None,
            client: "127.0.0.1".into(),
            now: super::fake::NOW,
            notices: true,
        }
    }
}
