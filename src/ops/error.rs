//! Why a command was refused.

use std::fmt;

use crate::model::snapshot::{Method, StaticReason};

/// Why a command changed nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum OpError {
    /// No upstream and no zone has this name.
    UpstreamNotFound(String),
    /// The upstream cannot be changed at run time.
    Static(StaticReason),
    /// No server is chosen by these words.
    ServerNotFound(String),
    /// There is no such position.
    BadPosition(usize),
    /// The method keeps weights where this nginx gives no way to refresh them.
    WeightNotYet(Method),
    /// The sum of the weights would be more than the method can take.
    WeightTooLarge {
        /// The sum that there would be.
        total: u64,
        /// The largest sum that is allowed.
        max: u64,
    },
    /// The note is longer than the store keeps.
    NoteTooLong {
        /// Its length, in bytes.
        len: usize,
        /// The largest length, in bytes.
        max: usize,
    },
    /// The module's zone has no room for this change.
    StoreFull {
        /// Bytes that were needed.
        needed: usize,
    },
    /// Others changed the upstream each time the change was about to be made.
    Busy,
}

impl fmt::Display for OpError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::UpstreamNotFound(_) => f.write_str("upstream is not found"),
            Self::Static(StaticReason::NoZone) => f.write_str("only for upstream with 'zone'"),
            Self::Static(reason) => write!(f, "upstream is static: {reason}"),
            Self::ServerNotFound(_) => f.write_str("server or peer is not found"),
            Self::BadPosition(_) => f.write_str("bad peer id"),
            Self::WeightNotYet(method) => {
                write!(f, "weight: not yet supported with \"{}\" on nginx before 1.27.3", method.as_str())
            }
            Self::WeightTooLarge { total, max } => {
                write!(f, "invalid weight: the sum of the weights would be {total}, at most {max} is allowed")
            }
            Self::NoteTooLong { len, max } => {
                write!(f, "note: {len} bytes are too long, at most {max} are kept")
            }
            Self::StoreFull { needed } => write!(
                f,
                "no memory left in the module's zone, {needed} bytes are needed: raise \"upstream_control_zone\""
            ),
            Self::Busy => f.write_str("upstream is being changed by others, try again"),
        }
    }
}
