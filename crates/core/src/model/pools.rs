//! Pools: upstreams that another one hands its requests to, the best that has a usable server first.

use std::fmt;

use super::id::UpstreamIndex;
use super::time::{Seconds, UnixTime};

/// Most pools of an upstream: a request remembers in the bits of a word which it was handed to.
pub const POOLS_MAX: usize = 64;

/// The pools of an upstream at one moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pools {
    /// The best first: by priority, and in the order of the configuration where that is equal. At least one.
    pub list: Vec<Pool>,
    /// Since when the active one is, or none has been.
    pub since: UnixTime,
}

/// One of them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pool {
    /// The upstream that is the pool.
    pub upstream: UpstreamIndex,
    /// Its name.
    pub name: String,
    /// Lower ones are better.
    pub priority: u32,
    /// How long it must have had a usable server before it takes the place of a worse one again; 0 for at once.
    pub failback: Seconds,
    /// What part it plays.
    pub standing: Standing,
}

/// What part a pool plays.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// Requests are handed to it.
    Active,
    /// It has a usable server, and so has a better one.
    Standby,
    /// It has a usable server again, and waits for its `failback`.
    Waiting {
        /// How much longer.
        left: Seconds,
    },
    /// It has no usable server. A request that is a trial may be handed to it all the same.
    Unavail {
        /// Servers that are down or draining.
        down: u64,
        /// Servers that nginx leaves alone for their failures.
        unavail: u64,
        /// Servers that failed, and that nginx will try again.
        untried: u64,
    },
}

impl Pools {
    /// The one that requests are handed to; none if no pool has a usable server.
    pub fn active(&self) -> Option<&Pool> {
        self.list.iter().find(|pool| pool.standing == Standing::Active)
    }
}

impl Standing {
    /// The word in status and metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Active => "active",
            Self::Standby => "standby",
            Self::Waiting { .. } => "waiting",
            Self::Unavail { .. } => "unavail",
        }
    }
}

/// Why requests are not handed to it, in words; nothing if they are, or if a better one is there.
impl fmt::Display for Standing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Active | Self::Standby => Ok(()),
            Self::Waiting { left } => write!(f, "usable, failback in {left}"),
            Self::Unavail { down: 0, unavail: 0, untried: 0 } => f.write_str("no servers"),
            Self::Unavail { down, unavail, untried } => {
                write!(f, "no usable server: {down} down, {unavail} unavailable, {untried} to be tried again")
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words() {
        let table = [
            (Standing::Active, "active", ""),
            (Standing::Standby, "standby", ""),
            (Standing::Waiting { left: Seconds(12) }, "waiting", "usable, failback in 12s"),
            (Standing::Unavail { down: 0, unavail: 0, untried: 0 }, "unavail", "no servers"),
            (
                Standing::Unavail { down: 1, unavail: 2, untried: 3 },
                "unavail",
                "no usable server: 1 down, 2 unavailable, 3 to be tried again",
            ),
        ];
        for (standing, word, why) in table {
            assert_eq!((standing.as_str(), standing.to_string().as_str()), (word, why));
        }
    }
}
