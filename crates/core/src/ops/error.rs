//! Why a command was refused.

use std::collections::TryReserveError;
use std::fmt;

use crate::model::address::AddressError;
use crate::model::id::{Group, ServerId};
use crate::model::list::ListPlace;
use crate::model::log::plural;
use crate::model::query::quoted;
use crate::model::snapshot::{StaticReason, store_stuck};

/// Why a command changed nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum OpError {
    /// No upstream and no zone has this name.
    UpstreamNotFound(String),
    /// Several upstreams have the zone of this name.
    SharedZone {
        /// Name of the zone.
        zone: String,
        /// Their names.
        upstreams: Vec<String>,
    },
    /// The upstream cannot be changed at run time.
    Static(StaticReason),
    /// No server is chosen by these words.
    ServerNotFound(String),
    /// No server is chosen by this text, but the host of it has servers at other ports.
    NearlyFound {
        /// The text.
        text: String,
        /// Some of their addresses.
        found: Vec<String>,
    },
    /// There is no such position; the largest of all stands for digits that are none.
    BadPosition(usize),
    /// The words choose several servers where one is needed; their ids.
    Ambiguous(Vec<ServerId>),
    /// nginx makes and removes the server as its name resolves.
    ManagedByDns,
    /// A server with this address is there already.
    Exists(String),
    /// A server with this address is there, in the other list.
    OtherGroup,
    /// The method has no list of backups.
    NoBackup,
    /// The text is no address.
    BadAddress(AddressError),
    /// Fewer servers would be left than the guard of the upstream asks for.
    Guarded {
        /// Usable servers that there would be.
        left: usize,
        /// How many there must be.
        min: usize,
    },
    /// The zone of the upstream has no room for another server.
    ZoneFull {
        /// Name of the zone.
        zone: String,
        /// Bytes that were needed.
        needed: usize,
    },
    /// The upstream has as many servers as nginx before 1.27.3 has places for.
    NoSlot {
        /// In which list.
        group: Group,
        /// How many.
        capacity: usize,
    },
    /// All places that are left are those of servers that left and still serve requests.
    SlotsBusy,
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
    /// A process died with the lock of the peers, which nothing but a reload gives back.
    Stuck,
    /// This process holds the lock of the module's zone, and does not go on.
    StoreStuck(u64),
    /// Others changed the upstream each time the change was about to be made.
    Busy,
    /// This process runs the configuration of before a reload, and does not know the servers of the new one.
    Reloaded,
    /// This is so because of what stands at a place of a list.
    At(ListPlace, Box<OpError>),
    /// A list says the same thing twice.
    Twice {
        /// `server` or `upstream`.
        what: &'static str,
        /// Its text there.
        text: String,
        /// Where it is, too.
        place: ListPlace,
    },
    /// The text of a server of a list is no address, and no server has it.
    NoAddress(AddressError),
    /// A list is empty.
    EmptyList,
    /// The process has no memory for what is asked for.
    NoMemory,
}

impl From<TryReserveError> for OpError {
    fn from(_: TryReserveError) -> Self {
        Self::NoMemory
    }
}

impl OpError {
    /// The same, with the place of a list that it is about.
    pub(super) fn at(self, place: ListPlace) -> Self {
        Self::At(place, Box::new(self))
    }
}

/// Says that there is nothing of this name, if there is a name.
fn not_found(f: &mut fmt::Formatter<'_>, what: &str, name: &str) -> fmt::Result {
    f.write_str(what)?;
    if name.is_empty() { Ok(()) } else { write!(f, ": {}", quoted(name.as_bytes())) }
}

impl fmt::Display for OpError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::UpstreamNotFound(name) => not_found(f, "upstream is not found", name),
            Self::SharedZone { zone, upstreams } => {
                let names: Vec<_> = upstreams.iter().map(|name| quoted(name.as_bytes())).collect();
                let zone = quoted(zone.as_bytes());
                write!(f, "several upstreams have zone {zone}, choose one by name: {}", names.join(", "))
            }
            Self::Static(StaticReason::NoZone { .. }) => f.write_str("only for upstream with 'zone'"),
            Self::Static(reason) => write!(f, "upstream is static: {reason}"),
            Self::ServerNotFound(text) => not_found(f, "server or peer is not found", text),
            Self::NearlyFound { text, found } => {
                not_found(f, "server or peer is not found", text)?;
                let found: Vec<_> = found.iter().map(|server| quoted(server.as_bytes())).collect();
                write!(f, ", did you mean {}?", found.join(" or "))
            }
            Self::BadPosition(usize::MAX) => f.write_str("bad peer id"),
            Self::BadPosition(position) => write!(f, "bad peer id: {position}"),
            Self::Ambiguous(ids) => {
                let ids: Vec<_> = ids.iter().map(ToString::to_string).collect();
                write!(f, "several servers match, choose one by id: {}", ids.join(", "))
            }
            Self::ManagedByDns => f.write_str("server is managed by DNS"),
            Self::Exists(address) => write!(f, "server {} exists", quoted(address.as_bytes())),
            Self::OtherGroup => f.write_str("can't change server type (primary<->backup)"),
            Self::NoBackup => f.write_str("balancing method does not support parameter \"backup\""),
            Self::BadAddress(error) => error.fmt(f),
            Self::Guarded { left, min } => {
                let left = plural(*left, "usable server");
                write!(f, "guard: {left} would be left, at least {min} must be, use \"force=\"")
            }
            Self::ZoneFull { zone, needed } => write!(
                f,
                "no memory left in zone {}, {needed} bytes are needed: raise the size of \"zone\"",
                quoted(zone.as_bytes())
            ),
            Self::NoSlot { group, capacity } => {
                let servers = plural(*capacity, if group.is_backup() { "backup server" } else { "server" });
                write!(
                    f,
                    "no place left, the upstream has its {servers}: raise \"upstream_capacity\" or the size of \"zone\""
                )
            }
            Self::SlotsBusy => f.write_str(
                "no place is free: servers that left still serve requests, try again or raise \"upstream_capacity\"",
            ),
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
            Self::Stuck => f.write_str("a worker died with the lock of the upstream: reload nginx"),
            Self::StoreStuck(holder) => store_stuck(*holder, f),
            Self::Busy => f.write_str("upstream is being changed by others, try again"),
            Self::Reloaded => f.write_str("nginx was reloaded meanwhile, try again"),
            Self::At(place, error) => write!(f, "{place}: {error}"),
            Self::Twice { what, text, place } => {
                write!(f, "{what} {} is also in {place}", quoted(text.as_bytes()))
            }
            Self::NoAddress(error) => write!(f, "{error}, and no server has this text"),
            Self::NoMemory => f.write_str("no memory left in the worker process, try again"),
            Self::EmptyList => f.write_str("the list has no servers, use \"force=\" to remove all of them"),
        }
    }
}
