//! The reply of all forms of `upstream_control` in JSON.

use serde::Serialize;

use crate::model::snapshot::{Peer, Snapshot};
use crate::model::time::UnixTime;
use crate::ops::Removal;

use super::super::peer::PeerView;

/// An upstream, and servers of it: one if it was addressed singly, else a list.
#[derive(Serialize)]
pub struct ServersView<'a> {
    /// Name of the upstream.
    upstream: &'a str,
    /// Its number of changes.
    revision: u64,
    /// The server that was addressed.
    #[serde(skip_serializing_if = "Option::is_none")]
    server: Option<PeerView<'a>>,
    /// The server that was removed.
    #[serde(skip_serializing_if = "Option::is_none")]
    removed: Option<RemovedView<'a>>,
    /// How many servers are left after one was removed.
    #[serde(skip_serializing_if = "Option::is_none")]
    left: Option<usize>,
    /// The servers.
    #[serde(skip_serializing_if = "Option::is_none")]
    servers: Option<Vec<PeerView<'a>>>,
    /// Why nothing was to be done.
    #[serde(skip_serializing_if = "Option::is_none")]
    unchanged: Option<String>,
}

/// A server that was removed.
#[derive(Serialize)]
pub struct RemovedView<'a> {
    /// Its identity, which no other server will get.
    id: u64,
    /// Its text.
    server: &'a str,
    /// Its address.
    name: &'a str,
    /// Requests that it still served then.
    active: u64,
}

impl<'a> From<&'a Removal> for RemovedView<'a> {
    fn from(removal: &'a Removal) -> Self {
        let (server, name) = (&removal.server.text, &removal.server.address);
        Self { id: removal.id.0, server, name, active: removal.active }
    }
}

impl<'a> ServersView<'a> {
    /// The one server that was addressed; a list where the words choose several.
    pub fn singly(snapshot: &'a Snapshot, peers: &[&'a Peer], now: UnixTime) -> Self {
        match peers {
            [peer] => Self { server: Some(PeerView::new(peer, now)), ..Self::empty(snapshot) },
            peers => Self::list(snapshot, peers.iter().copied(), now),
        }
    }

    /// A list of servers.
    pub fn list(snapshot: &'a Snapshot, peers: impl IntoIterator<Item = &'a Peer>, now: UnixTime) -> Self {
        let servers = peers.into_iter().map(|peer| PeerView::new(peer, now)).collect();
        Self { servers: Some(servers), ..Self::empty(snapshot) }
    }

    /// The server that was removed, and the servers that are left.
    pub fn removed(snapshot: &'a Snapshot, removed: Option<&'a Removal>, now: UnixTime) -> Self {
        let servers = Self::list(snapshot, &snapshot.peers, now).servers;
        Self { servers, ..Self::removed_of(snapshot, removed, snapshot.peers.len()) }
    }

    /// The server that was removed, and how many are left.
    pub fn removed_of(snapshot: &'a Snapshot, removed: Option<&'a Removal>, left: usize) -> Self {
        let removed = removed.map(RemovedView::from);
        Self { removed, left: Some(left), ..Self::empty(snapshot) }
    }

    /// No servers, and why nothing was to be done.
    pub fn unchanged(snapshot: &'a Snapshot, why: String) -> Self {
        Self { unchanged: Some(why), ..Self::empty(snapshot) }
    }

    /// The upstream without servers.
    fn empty(snapshot: &'a Snapshot) -> Self {
        Self {
            upstream: &snapshot.name,
            revision: snapshot.revision.0,
            server: None,
            removed: None,
            left: None,
            servers: None,
            unchanged: None,
        }
    }
}
