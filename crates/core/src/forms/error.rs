//! Why a request is refused, and the HTTP status of it.

use crate::model::params::ParamError;
use crate::model::query::QueryError;
use crate::ops::OpError;

use super::settings::HostErrors;

/// Kind of a refusal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// An argument is missing, unknown, malformed, or contradicts another.
    BadArgument,
    /// The server that the arguments choose does not exist.
    ServerNotFound,
    /// The values are well-formed, but not allowed for this upstream.
    BadValue,
    /// What is asked for is so already, in the words of ngx_dynamic_upstream: the reply has no body.
    NothingToDo,
    /// A page of another site made a browser send the request, or may have.
    CrossSite,
    /// A browser asks by the name of a host that this server is not known to have.
    UnknownHost,
    /// The reply of a proxied server led here.
    ProxiedReply,
    /// There is no such upstream.
    UpstreamNotFound,
    /// The path is none that is answered.
    PathNotFound,
    /// There is no such pool, or it has no such host, in the form of lua-resty-upstream.
    NoSuchHost(HostErrors),
    /// The method is not allowed here; the header says which are.
    MethodNotAllowed {
        /// Value of `Allow`.
        allow: &'static str,
    },
    /// A server with this address is there.
    EntryExists,
    /// Several servers match where one is meant, or several upstreams.
    Ambiguous,
    /// nginx makes and removes the server as its name resolves.
    ManagedByDns,
    /// Fewer servers would be left than must be.
    Guarded,
    /// A server cannot become a backup, or cease to be one.
    OtherGroup,
    /// Some of the upstreams refused; the body says which.
    PartlyDone,
    /// The body is too large.
    BodyTooLarge,
    /// The query string is too long.
    QueryTooLong,
    /// The body is no form.
    UnsupportedBody,
    /// The upstream cannot be changed at run time.
    UpstreamStatic,
    /// The module cannot do that, or not with this nginx.
    NotSupported,
    /// There is no memory for it.
    NoMemory,
    /// The process has no memory for it now.
    OutOfMemory,
    /// Others are changing the upstream.
    Busy,
    /// The module is not set up, or failed.
    Internal,
}

impl Kind {
    /// The HTTP status.
    pub fn status(self) -> u16 {
        match self {
            Self::NothingToDo => 304,
            Self::BadArgument | Self::ServerNotFound | Self::BadValue => 400,
            Self::CrossSite | Self::UnknownHost | Self::ProxiedReply => 403,
            Self::NoSuchHost(HostErrors::Ok) => 200,
            Self::UpstreamNotFound | Self::PathNotFound => 404,
            Self::MethodNotAllowed { .. } => 405,
            Self::EntryExists | Self::Ambiguous | Self::ManagedByDns | Self::Guarded | Self::PartlyDone => {
                409
            }
            Self::OtherGroup => 412,
            Self::BodyTooLarge => 413,
            Self::QueryTooLong => 414,
            Self::UnsupportedBody => 415,
            Self::NoMemory | Self::Internal | Self::NoSuchHost(HostErrors::Failed) => 500,
            Self::UpstreamStatic | Self::NotSupported => 501,
            Self::Busy | Self::OutOfMemory => 503,
        }
    }

    /// The word for programs, in JSON.
    pub fn code(self) -> &'static str {
        match self {
            Self::BadArgument => "BadArgument",
            Self::ServerNotFound => "ServerNotFound",
            Self::BadValue => "BadValue",
            Self::NothingToDo => "NothingToDo",
            Self::CrossSite => "CrossSite",
            Self::UnknownHost => "UnknownHost",
            Self::ProxiedReply => "ProxiedReply",
            Self::UpstreamNotFound => "UpstreamNotFound",
            Self::PathNotFound => "PathNotFound",
            Self::NoSuchHost(_) => "NoSuchHost",
            Self::MethodNotAllowed { .. } => "MethodNotAllowed",
            Self::EntryExists => "EntryExists",
            Self::Ambiguous => "Ambiguous",
            Self::ManagedByDns => "ManagedByDns",
            Self::Guarded => "Guarded",
            Self::OtherGroup => "OtherGroup",
            Self::PartlyDone => "PartlyDone",
            Self::BodyTooLarge => "BodyTooLarge",
            Self::QueryTooLong => "QueryTooLong",
            Self::UnsupportedBody => "UnsupportedBody",
            Self::NoMemory | Self::OutOfMemory => "NoMemory",
            Self::Internal => "Internal",
            Self::UpstreamStatic => "UpstreamStatic",
            Self::NotSupported => "NotSupported",
            Self::Busy => "Busy",
        }
    }

    /// The header that the status needs beside the body.
    pub fn header(self) -> Option<(&'static str, &'static str)> {
        match self {
            Self::MethodNotAllowed { allow } => Some(("Allow", allow)),
            // A change takes less than a millisecond; a second is the least that the header can say.
            Self::Busy | Self::OutOfMemory => Some(("Retry-After", "1")),
            _ => None,
        }
    }

    /// Whether the operator of this nginx has something to look at.
    pub fn is_failure(self) -> bool {
        matches!(self, Self::NoMemory | Self::OutOfMemory | Self::Internal)
    }
}

/// A refused request: nothing was changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// Its kind.
    pub kind: Kind,
    /// The words for people.
    pub text: String,
}

impl Refusal {
    /// A refusal of this kind with these words.
    pub fn new(kind: Kind, text: impl Into<String>) -> Self {
        Self { kind, text: text.into() }
    }

    /// A missing or wrong argument.
    pub fn argument(text: impl Into<String>) -> Self {
        Self::new(Kind::BadArgument, text)
    }

    /// The module has no shared memory.
    pub fn no_memory_zone() -> Self {
        Self::new(Kind::Internal, "no shared memory")
    }
}

impl From<&OpError> for Kind {
    fn from(error: &OpError) -> Self {
        match error {
            OpError::UpstreamNotFound(_) => Self::UpstreamNotFound,
            OpError::Static(_) => Self::UpstreamStatic,
            OpError::ServerNotFound(_) | OpError::NearlyFound { .. } | OpError::BadPosition(_) => {
                Self::ServerNotFound
            }
            OpError::Ambiguous(_) | OpError::SharedZone { .. } => Self::Ambiguous,
            OpError::ManagedByDns => Self::ManagedByDns,
            OpError::Exists(_) => Self::EntryExists,
            OpError::OtherGroup => Self::OtherGroup,
            OpError::Guarded { .. } | OpError::EmptyList => Self::Guarded,
            OpError::BadAddress(_) | OpError::Twice { .. } | OpError::NoAddress(_) => Self::BadArgument,
            OpError::At(_, error) => Self::from(error.as_ref()),
            OpError::WeightTooLarge { .. } | OpError::NoteTooLong { .. } | OpError::NoBackup => {
                Self::BadValue
            }
            // The NGINX Plus API answers 500 when a zone is full, whatever its documents say.
            OpError::StoreFull { .. } | OpError::ZoneFull { .. } | OpError::NoSlot { .. } => Self::NoMemory,
            OpError::NoMemory => Self::OutOfMemory,
            OpError::Busy
            | OpError::Reloaded
            | OpError::Stuck
            | OpError::StoreStuck(_)
            | OpError::SlotsBusy => Self::Busy,
        }
    }
}

impl From<OpError> for Refusal {
    fn from(error: OpError) -> Self {
        Self::new(Kind::from(&error), error.to_string())
    }
}

impl From<QueryError> for Refusal {
    fn from(error: QueryError) -> Self {
        let kind = if error.is_too_large() { Kind::QueryTooLong } else { Kind::BadArgument };
        Self::new(kind, error.to_string())
    }
}

impl From<ParamError> for Refusal {
    fn from(error: ParamError) -> Self {
        Self::argument(error.to_string())
    }
}
