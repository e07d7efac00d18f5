//! An upstream as it was at one moment: copied out under the locks, used after them.

use std::fmt;

use super::id::{Revision, ServerId, Slot};
use super::pools::Pools;
use super::server::Terms;
use super::state::{Failures, Reason, State, state};
use super::text::Text;
use super::time::UnixTime;

/// How an upstream chooses among its peers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Method {
    /// nginx's default.
    RoundRobin,
    /// `least_conn`.
    LeastConn,
    /// `ip_hash`.
    IpHash,
    /// `hash key`.
    Hash,
    /// `hash key consistent`.
    HashConsistent,
    /// `random`, with or without `two`.
    Random,
    /// `least_time`.
    LeastTime,
}

impl Method {
    /// nginx's word for it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::RoundRobin => "round_robin",
            Self::LeastConn => "least_conn",
            Self::IpHash => "ip_hash",
            Self::Hash => "hash",
            Self::HashConsistent => "hash consistent",
            Self::Random => "random",
            Self::LeastTime => "least_time",
        }
    }
}

/// Why an upstream cannot be changed at run time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StaticReason {
    /// It has no `zone`, so that each worker has peers of its own.
    NoZone {
        /// Size of a zone with room for its servers and as many more, in kilobytes.
        kilobytes: usize,
    },
    /// It is not an `upstream` block, but an address in a directive such as `proxy_pass`.
    Implicit,
    /// `upstream_dynamic off`.
    Excluded,
    /// Its balancer is none of nginx's own.
    UnknownBalancer,
    /// It has no servers of its own but hands requests to other upstreams.
    Pools,
    /// nginx's structures are not as this module was compiled for; the words say where.
    Layout(&'static str),
    /// The module's own zone has no room for its servers.
    StoreFull,
    /// The lock of the module's own zone is held by a process that does not go on.
    StoreLocked,
    /// This process holds that lock for now, and does not go on.
    StoreStuck(u64),
    /// A process died with the lock of its peers.
    Stuck,
    /// Its `zone` has no room for the word that the module needs there.
    ZoneFull,
}

impl fmt::Display for StaticReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoZone { kilobytes } => write!(
                f,
                "upstream has no \"zone\": add \"upstream_auto_zone {kilobytes}k;\" or \"zone NAME {kilobytes}k;\""
            ),
            Self::Implicit => f.write_str("not an \"upstream\" block"),
            Self::Excluded => f.write_str("\"upstream_dynamic off\" is set"),
            Self::UnknownBalancer => f.write_str("unknown load balancing method"),
            Self::Pools => f.write_str("it has pools, whose servers can be changed"),
            Self::Layout(what) => {
                write!(f, "this nginx has other structures than the module was built for: {what}")
            }
            Self::StoreFull => {
                f.write_str("no memory left in the module's zone, raise \"upstream_control_zone\"")
            }
            Self::StoreLocked => {
                f.write_str("a process holds the lock of the module's zone, reload nginx once more")
            }
            Self::StoreStuck(holder) => store_stuck(*holder, f),
            Self::Stuck => f.write_str("a worker died with the lock of the upstream, reload nginx"),
            Self::ZoneFull => {
                f.write_str("no memory left in the zone of the upstream, raise its \"zone\" size")
            }
        }
    }
}

/// Why nobody can take the lock of the module's own zone, for now.
pub fn store_stuck(holder: u64, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    write!(f, "process {holder} holds the lock of the module's zone, and does not go on: resume it or end it")
}

/// One peer, at one moment.
#[derive(Clone, Debug)]
pub struct Peer {
    /// Identity; none in a static upstream.
    pub id: Option<ServerId>,
    /// Where it stands.
    pub slot: Slot,
    /// Text of the `server` directive.
    pub server: Text,
    /// Address, as nginx writes it.
    pub name: Text,
    /// What is wanted of it.
    pub terms: Terms,
    /// Weight lowered after failures.
    pub effective_weight: i64,
    /// Round robin's running sum.
    pub current_weight: i64,
    /// Requests it serves now.
    pub active: u64,
    /// nginx's `down` word: 0 when the balancers may choose it.
    pub down: u64,
    /// Whether nginx makes and removes it as a name resolves.
    pub managed: bool,
    /// Who wanted it, unless it is up since the start.
    pub reason: Option<Reason>,
    /// Counters of failures.
    pub failures: Failures,
    /// When a request to it last failed.
    pub last_failure: Option<UnixTime>,
}

impl Peer {
    /// Its state.
    pub fn state(&self) -> State {
        state(self.terms.admin, &self.failures)
    }

    /// Whether balancers may choose it at `now`: also one that failed, to see whether it is well.
    pub fn is_tried(&self, now: UnixTime) -> bool {
        self.terms.is_up() && !self.failures.exhausted(now)
    }

    /// Why it is in its state at `now`.
    pub fn why(&self, now: UnixTime) -> Option<Reason> {
        match self.state() {
            State::Unavail if self.failures.exhausted(now) => Some(Reason::Failures),
            State::Unavail => Some(Reason::Retry),
            _ => self.reason.clone(),
        }
    }

    /// Whether it is a `backup` server.
    pub fn is_backup(&self) -> bool {
        self.slot.group.is_backup()
    }
}

/// Memory of a shared zone.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Memory {
    /// Size of the zone, in bytes.
    pub size: u64,
    /// Size of a page, in bytes.
    pub page: u64,
    /// Pages that can be allocated at all.
    pub pages_total: u64,
    /// Pages that are free.
    pub pages_free: u64,
}

/// What a list of peers says of itself, beside what was counted: where they differ, something leaks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Totals {
    /// nginx's `number`.
    pub number: u64,
    /// nginx's `total_weight`.
    pub total_weight: u64,
    /// nginx's `tries`.
    pub tries: u64,
    /// Peers in the list.
    pub counted: u64,
    /// Sum of their weights.
    pub counted_weight: u64,
    /// Those with `down` 0.
    pub counted_usable: u64,
    /// Sum of their active requests.
    pub conns: u64,
    /// Sum of the references to them; always 0 where nginx has none.
    pub refs: u64,
}

/// Peers that were removed while requests used them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Zombies {
    /// How many.
    pub peers: u64,
    /// Requests that still use them.
    pub conns: u64,
}

/// What is not as it must be in the lists of an upstream: always nothing, unless the module or nginx errs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Faults {
    /// There are more or fewer places, with a server or without, than at the start, or nginx takes a list for longer or
    /// shorter than it is.
    pub length: bool,
    /// A place without a server stands in a list, and should not.
    pub order: bool,
    /// The balancers may choose a place without a server, or it has a weight.
    pub blank: bool,
    /// There is no weight at all, which some balancers divide by.
    pub weight: bool,
    /// nginx takes several servers for one, or one for several.
    pub single: bool,
}

impl Faults {
    /// The names of those that are there.
    pub fn names(self) -> Vec<&'static str> {
        let Self { length, order, blank, weight, single } = self;
        let all =
            [("length", length), ("order", order), ("blank", blank), ("weight", weight), ("single", single)];
        all.into_iter().filter(|(_, there)| *there).map(|(name, _)| name).collect()
    }
}

/// Texts of the server by which older modules say that an upstream has none, where nginx refuses an upstream without
/// any. It is that only where no other server is.
pub const PLACEHOLDERS: [&str; 2] = ["0.0.0.0:1", "[::]:1"];

/// Whether these peers of an upstream stand for none.
pub fn are_none(peers: &[Peer]) -> bool {
    matches!(peers, [peer] if !peer.is_backup() && PLACEHOLDERS.iter().any(|text| peer.server == *text))
}

impl Snapshot {
    /// The same without the server that stands for none.
    pub fn without_placeholder(mut self) -> Self {
        if are_none(&self.peers) {
            self.peers.clear();
        }
        self
    }

    /// Whether nginx counts for all workers together: without a zone each has numbers of its own, and these are of the
    /// one that was asked.
    pub fn is_shared(&self) -> bool {
        self.zone.is_some()
    }

    /// Forgets what only one worker knows of its peers, so that nobody takes it for the whole.
    pub fn forget_worker(&mut self) {
        if self.is_shared() {
            return;
        }
        for peer in &mut self.peers {
            (peer.active, peer.failures.fails, peer.last_failure) = (0, 0, None);
        }
    }
}

/// One upstream, at one moment.
#[derive(Clone, Debug)]
pub struct Snapshot {
    /// Name of the `upstream` block.
    pub name: String,
    /// Name of its zone.
    pub zone: Option<String>,
    /// How it chooses; none if unknown.
    pub method: Option<Method>,
    /// Why it cannot be changed, if it cannot.
    pub fixed: Option<StaticReason>,
    /// Number of changes so far.
    pub revision: Revision,
    /// Memory of its zone.
    pub memory: Option<Memory>,
    /// Its pools, if it has pools in the place of servers.
    pub pools: Option<Pools>,
    /// Primaries, then backups, each in nginx's order.
    pub peers: Vec<Peer>,
    /// What the list of primaries says of itself.
    pub primary: Totals,
    /// The same of the backups, where there is such a list.
    pub backup: Option<Totals>,
    /// Peers that were removed while requests used them.
    pub zombies: Zombies,
    /// What is not as it must be.
    pub faults: Faults,
}
