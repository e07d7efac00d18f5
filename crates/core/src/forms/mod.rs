//! What a request asks for, and the reply: parse, let `ops` act, reply.
//!
//! A request is a [`Call`], and the upstreams are a trait, so that all of it is tested without nginx. HTTP status codes
//! appear here and nowhere else.

mod accept;
mod arguments;
mod browser;
mod call;
pub mod control;
mod error;
#[cfg(any(test, feature = "fake"))]
pub mod fake;
mod guard;
mod markup;
mod media;
mod peer;
mod respond;
mod scope;
mod settings;
pub mod status;

pub use call::Call;
pub use error::{Kind, Refusal};
pub use peer::is_down;
pub use respond::{Answer, EXHAUSTED, failed};
pub use settings::{Dialect, HostErrors, Methods, Role, Settings};
