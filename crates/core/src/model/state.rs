//! Whether a server gets requests, and why not.

use std::fmt;

use super::text::Text;
use super::time::UnixTime;

/// What an operator, or the configuration file, wants of a server.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Admin {
    /// It takes requests.
    #[default]
    Up,
    /// It takes no requests.
    Down,
    /// It takes no new requests but those bound to it, and is to be finished with.
    Drain,
}

impl Admin {
    /// The word for logs: what the server is told to be.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Up => "up",
            Self::Down => "down",
            Self::Drain => "draining",
        }
    }
}

/// State of a peer as users see it; the words are those of the NGINX Plus API.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// Takes requests.
    Up,
    /// An operator or the configuration took it down.
    Down,
    /// Takes no new requests.
    Draining,
    /// It failed `max_fails` times: nginx leaves it alone for `fail_timeout`, then tries it with one request at a time.
    Unavail,
}

impl State {
    /// The word in status and metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Up => "up",
            Self::Down => "down",
            Self::Draining => "draining",
            Self::Unavail => "unavail",
        }
    }
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Counters by which nginx decides that a peer is unavailable.
#[derive(Clone, Copy, Debug, Default)]
pub struct Failures {
    /// Failures counted at present.
    pub fails: u64,
    /// Failures after which the peer is left alone; 0 for never.
    pub max_fails: u64,
    /// How long it is left alone, in seconds.
    pub fail_timeout: u64,
    /// When nginx last judged it.
    pub checked: i64,
    /// Whether it is the only server of its upstream, which nginx never leaves alone.
    pub single: bool,
}

impl Failures {
    /// Whether the failures are as many as the peer may have: it counts as failed until a request succeeds.
    pub fn is_full(&self) -> bool {
        !self.single && self.max_fails != 0 && self.fails >= self.max_fails
    }

    /// Whether nginx's balancers skip the peer at `now`: the rule of `ngx_http_upstream_get_peer`.
    pub fn exhausted(&self, now: UnixTime) -> bool {
        self.is_full() && u64::try_from(now.0.saturating_sub(self.checked)).unwrap_or(0) <= self.fail_timeout
    }
}

/// State of a peer from what was asked of it and what was seen of it.
pub fn state(admin: Admin, failures: &Failures) -> State {
    match admin {
        Admin::Down => State::Down,
        Admin::Drain => State::Draining,
        // Also after `fail_timeout`: whether it is well, only a request can tell.
        Admin::Up if failures.is_full() => State::Unavail,
        Admin::Up => State::Up,
    }
}

/// Why a peer is in its state.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reason {
    /// The configuration file says so.
    Configuration,
    /// Somebody asked for it at run time.
    Operator {
        /// When.
        at: UnixTime,
        /// Address of the client, as nginx logs it.
        client: Text,
        /// Its user, if a password was checked.
        user: Option<String>,
        /// The words given with `note=`.
        note: Option<String>,
    },
    /// `max_fails` was reached.
    Failures,
    /// The same, and `fail_timeout` is over: the next request is its trial.
    Retry,
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Configuration => f.write_str("configuration"),
            Self::Failures => f.write_str("max_fails reached"),
            Self::Retry => f.write_str("retry: fail_timeout is over, a request tries it next"),
            Self::Operator { at, client, user, note } => {
                write!(f, "client {client}")?;
                user.as_ref().map_or(Ok(()), |user| write!(f, ", user {user}"))?;
                write!(f, " at {at}")?;
                note.as_ref().map_or(Ok(()), |note| write!(f, ": {note}"))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Three failures out of three, judged at 100.
    const FAILED: Failures =
        Failures { fails: 3, max_fails: 3, fail_timeout: 10, checked: 100, single: false };

    #[test]
    fn a_failed_peer_is_left_alone_until_fail_timeout_is_over() {
        for (now, alone) in [(100, true), (110, true), (111, false)] {
            assert_eq!(FAILED.exhausted(UnixTime(now)), alone, "{now}");
        }
    }

    #[test]
    fn a_failed_peer_is_unavailable_until_a_request_succeeds() {
        assert_eq!(state(Admin::Up, &FAILED), State::Unavail);
        assert_eq!(state(Admin::Up, &Failures { fails: 2, ..FAILED }), State::Up);
    }

    #[test]
    fn a_lone_peer_and_max_fails_0_are_never_unavailable() {
        for failures in [Failures { single: true, ..FAILED }, Failures { max_fails: 0, ..FAILED }] {
            assert_eq!(state(Admin::Up, &failures), State::Up);
        }
    }

    #[test]
    fn what_the_operator_wants_comes_first() {
        assert_eq!(state(Admin::Down, &FAILED), State::Down);
        assert_eq!(state(Admin::Drain, &FAILED), State::Draining);
    }
}
