//! How a call ended, and why it came to nothing.

use std::ffi::c_int;

use crate::forms::Refusal;
use crate::nginx::caller::NotProxied;
use crate::ops::OpError;

/// It was done.
pub const OK: c_int = 0;

/// More memory is needed.
pub const MORE: c_int = 1;

/// Nothing was done, for a reason.
pub const REFUSED: c_int = -1;

/// Why nothing was done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// The word for programs: that of [`Kind::code`](crate::forms::Kind::code), or one of this file.
    pub code: &'static str,
    /// The words for people.
    pub text: String,
    /// Whether the operator has something to look at.
    pub is_grave: bool,
}

impl Failure {
    /// Something that is wrong with the call.
    pub fn new(code: &'static str, text: impl Into<String>) -> Self {
        Self { code, text: text.into(), is_grave: false }
    }
}

impl From<Refusal> for Failure {
    fn from(Refusal { kind, text }: Refusal) -> Self {
        Self { code: kind.code(), text, is_grave: kind.is_failure() }
    }
}

impl From<OpError> for Failure {
    fn from(error: OpError) -> Self {
        Refusal::from(error).into()
    }
}

impl From<NotProxied> for Failure {
    fn from(error: NotProxied) -> Self {
        match error {
            NotProxied::Idle => Self::new("NoRequest", "no request object"),
            NotProxied::Local => Self::new("NoProxying", "no proxying"),
            NotProxied::Nameless => Self::new("NoUpstream", "no upstream"),
        }
    }
}
