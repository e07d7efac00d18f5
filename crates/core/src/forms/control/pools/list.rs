//! What `/pools` shows.

use serde::ser::SerializeMap;
use serde::{Serialize, Serializer};

use crate::model::id::UpstreamIndex;
use crate::model::pools::Pool;
use crate::model::snapshot::{Peer, Snapshot};
use crate::model::state::Admin;
use crate::model::time::UnixTime;
use crate::ops::{OpError, Upstreams};

use super::super::super::error::Refusal;
use super::super::super::respond;

/// All pools at `now`.
///
/// # Errors
///
/// There is no memory for all of them.
pub fn view(upstreams: &dyn Upstreams, now: UnixTime) -> Result<impl Serialize, Refusal> {
    let (mut views, mut servers) = (Vec::new(), 0_usize);
    for pool in all(upstreams) {
        let snapshot = upstreams.snapshot(pool.upstream)?;
        servers = servers.saturating_add(snapshot.peers.len());
        drop(respond::room(upstreams, servers)?);
        views.push((snapshot.name.clone(), PoolHosts::new(&snapshot, pool.priority, now)));
    }
    Ok(PoolMap(views))
}

/// The upstream that is the pool of this name.
///
/// # Errors
///
/// There is none, or several have this name.
pub fn find(upstreams: &dyn Upstreams, pool: &str) -> Result<UpstreamIndex, OpError> {
    let found = upstreams.find(pool)?;
    if !all(upstreams).into_iter().any(|pool| pool.upstream == found) {
        return Err(OpError::UpstreamNotFound(pool.to_owned()));
    }
    Ok(found)
}

/// The pools, each once, as the first upstream has them that does, in the order of their blocks.
fn all(upstreams: &dyn Upstreams) -> Vec<Pool> {
    let mut all: Vec<Pool> = Vec::new();
    let composed = (0..upstreams.count()).filter_map(|index| upstreams.pools(UpstreamIndex(index)));
    for pool in composed.flat_map(|pools| pools.list) {
        if all.iter().all(|known| known.upstream != pool.upstream) {
            all.push(pool);
        }
    }
    all.sort_by_key(|pool| pool.upstream.0);
    all
}

/// The pools: an object, in their order.
struct PoolMap(Vec<(String, PoolHosts)>);

impl Serialize for PoolMap {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(self.0.len()))?;
        for (name, pool) in &self.0 {
            map.serialize_entry(name, pool)?;
        }
        map.end()
    }
}

/// One pool.
#[derive(Serialize)]
struct PoolHosts {
    /// Whether any of its hosts takes requests.
    up: bool,
    /// How it chooses.
    method: &'static str,
    /// Lower ones are better.
    priority: u32,
    /// Seconds for which a host that failed is left alone, if that is the same for all of them.
    #[serde(skip_serializing_if = "Option::is_none")]
    failed_timeout: Option<u64>,
    /// Failures after which it is, if that is the same for all of them.
    #[serde(skip_serializing_if = "Option::is_none")]
    max_fails: Option<u64>,
    /// Its hosts, in the order of the status.
    hosts: Vec<HostView>,
}

/// One host of a pool.
#[derive(Serialize)]
struct HostView {
    /// Its number, from 1.
    id: String,
    /// Its address without the port. IPv6 addresses have their brackets, as the connecting functions of Lua want them.
    host: String,
    /// Its port; a socket of the file system has none.
    #[serde(skip_serializing_if = "Option::is_none")]
    port: Option<u16>,
    /// Weight.
    weight: u64,
    /// Whether it takes requests.
    up: bool,
    /// Failures that are counted at present; 0 of a host that was taken down.
    failcount: u64,
    /// When the last of them was, in seconds since 1970; 0 if none is counted.
    lastfail: i64,
}

impl PoolHosts {
    /// The view of an upstream.
    fn new(snapshot: &Snapshot, priority: u32, now: UnixTime) -> Self {
        let peers = &snapshot.peers;
        Self {
            up: peers.iter().any(|peer| peer.is_tried(now)),
            method: snapshot.method.map_or("unknown", |method| method.as_str()),
            priority,
            failed_timeout: common(peers.iter().map(|peer| peer.terms.params.fail_timeout)),
            max_fails: common(peers.iter().map(|peer| peer.terms.params.max_fails)),
            hosts: peers.iter().zip(1..).map(|(peer, place)| HostView::new(peer, place, now)).collect(),
        }
    }
}

impl HostView {
    /// The view of a peer; `place` is that in the list, from 1.
    fn new(peer: &Peer, place: u64, now: UnixTime) -> Self {
        let (host, port) = host_and_port(&peer.name);
        let (failcount, lastfail) = match (peer.terms.admin, peer.last_failure) {
            // After its time-out it counts as one that never failed, in the eyes of those who know this form.
            (Admin::Up, _) if peer.failures.is_full() && peer.is_tried(now) => (0, 0),
            (Admin::Up, Some(at)) if peer.failures.fails > 0 => (peer.failures.fails, at.0),
            (Admin::Up, _) => (peer.failures.fails, 0),
            // One that failed would come back by itself, in the eyes of those who know this form.
            (Admin::Down | Admin::Drain, _) => (0, 0),
        };
        Self {
            id: peer.id.map_or(place, |id| id.0.saturating_add(1)).to_string(),
            host,
            port,
            weight: peer.terms.params.weight,
            up: peer.is_tried(now),
            failcount,
            lastfail,
        }
    }
}

/// The one value that all have; none if they differ, or if there are none.
fn common(mut values: impl Iterator<Item = u64>) -> Option<u64> {
    let first = values.next()?;
    values.all(|value| value == first).then_some(first)
}

/// An address as nginx writes it, in two.
fn host_and_port(name: &str) -> (String, Option<u16>) {
    let split = name.rsplit_once(':').filter(|_| !name.starts_with("unix:"));
    match split.and_then(|(host, port)| Some((host, port.parse().ok()?))) {
        Some((host, port)) => (host.to_owned(), Some(port)),
        None => (name.to_owned(), None),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_in_two() {
        let table = [
            ("127.0.0.1:81", "127.0.0.1", Some(81)),
            ("[::1]:81", "[::1]", Some(81)),
            ("unix:/run/app.sock", "unix:/run/app.sock", None),
            ("unix:/run/app:80", "unix:/run/app:80", None),
            ("127.0.0.1:65536", "127.0.0.1:65536", None),
            ("app", "app", None),
        ];
        for (name, host, port) in table {
            assert_eq!(host_and_port(name), (host.to_owned(), port), "{name}");
        }
    }

    #[test]
    fn what_all_have() {
        assert_eq!(common([].into_iter()), None);
        assert_eq!(common([3].into_iter()), Some(3));
        assert_eq!(common([3, 3].into_iter()), Some(3));
        assert_eq!(common([3, 3, 4].into_iter()), None);
    }
}
