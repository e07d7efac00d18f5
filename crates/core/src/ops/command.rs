//! A change as it was asked for.

use crate::model::address::{Address, is_same};
use crate::model::client::Client;
use crate::model::id::{ServerId, UpstreamIndex};
use crate::model::server::{Change, Server};
use crate::model::snapshot::Peer;

use super::host;

/// Words that choose servers of an upstream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Selector {
    /// Present position among the primaries, from 0.
    Position(usize),
    /// Identity.
    Id(ServerId),
    /// Text of the `server` directive, or an address.
    Server(String),
    /// A host at any port, a host at one port, or an address.
    Host(String),
}

impl Selector {
    /// The words, for messages.
    pub fn text(&self) -> String {
        match self {
            Self::Position(position) => position.to_string(),
            Self::Id(id) => id.to_string(),
            Self::Server(text) | Self::Host(text) => text.clone(),
        }
    }

    /// Whether `peer` is meant. A server text chooses by the text of the directive, by the address as nginx writes
    /// it, and by any other way to write that address; the case of letters in host names means nothing.
    pub fn chooses(&self, peer: &Peer) -> bool {
        match self {
            Self::Position(position) => !peer.is_backup() && peer.slot.index == *position,
            Self::Id(id) => peer.id == Some(*id),
            Self::Server(text) => {
                is_same(text.as_bytes(), peer.server.as_bytes())
                    || is_same(text.as_bytes(), peer.name.as_bytes())
                    || Address::parse(text).is_ok_and(|wanted| Address::parse(&peer.name) == Ok(wanted))
            }
            Self::Host(text) => host::is_of(text, &peer.server, &peer.name),
        }
    }
}

/// What is asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Other parameters, or another state, of the chosen servers.
    Set(Change),
    /// A new server; nothing is chosen.
    Add(Server),
    /// That the chosen server leaves.
    Remove,
    /// Another address of the chosen server, which keeps its id and its place. Without a port it keeps its port.
    Readdress {
        /// The address, as it was typed.
        address: String,
        /// What else changes.
        change: Change,
    },
}

/// A change, to whom, and who asks for it.
#[derive(Clone, Debug)]
pub struct Command {
    /// The upstream.
    pub upstream: UpstreamIndex,
    /// The servers; each must choose at least one, and exactly one to remove it or to change its address.
    pub servers: Vec<Selector>,
    /// What is asked for.
    pub action: Action,
    /// Whether the guard of the upstream is set aside.
    pub force: bool,
    /// Who asks, for the log and the reason.
    pub client: Client,
    /// The client's words.
    pub note: Option<String>,
}
