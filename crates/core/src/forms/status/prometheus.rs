//! The status as metrics, in the text format of PrometheusForm (exposition format 0.0.4), named by its guide: a base unit at
//! the end of a name, and sums over a label that mean something.
//!
//! The format wants all samples of a metric together, and each series once. A series of a server is that of its id, or,
//! in an upstream that cannot be changed, where servers have none, of its place.

use std::collections::HashSet;
use std::fmt::{self, Display, Write as _};
use std::io::Write as _;

use crate::model::id::ServerId;
use crate::model::pools::{Pool, Pools, Standing};
use crate::model::snapshot::{Memory, Peer, Snapshot};
use crate::model::state::State;

use super::super::respond::Answer;
use super::listing::Listing;
use super::pools::{is_usable, method};
use super::writer::Form;

/// The states, each of which is a series.
const STATES: [State; 4] = [State::Up, State::Down, State::Draining, State::Unavail];

/// The kind of a metric. Nothing here only ever grows.
const GAUGE: &str = "gauge";

/// A peer whose samples are written.
struct Sampled<'a> {
    /// The peer.
    peer: &'a Peer,
    /// Its state.
    state: State,
    /// Whether nginx counts for all workers together; otherwise each has numbers of its own.
    is_shared: bool,
}

/// A metric of peers: its name, what it is, and its value for a peer, if it has one.
type PeerMetric = (&'static str, &'static str, fn(&Sampled<'_>) -> Option<i64>);

/// The metrics of peers that have one value each.
const ROWS: [PeerMetric; 8] = [
    ("peer_up", "Whether the server takes new requests.", |it| Some(i64::from(it.state == State::Up))),
    (
        "peer_active_connections",
        "Connections to the server that are in use now. Only of upstreams with a zone.",
        |it| it.is_shared.then(|| signed(it.peer.active)),
    ),
    ("peer_max_connections", "Most connections to the server at a time (max_conns), 0 for no limit.", |it| {
        Some(signed(it.peer.terms.params.max_conns))
    }),
    ("peer_weight", "Weight of the server.", |it| Some(signed(it.peer.terms.params.weight))),
    (
        "peer_fails",
        "Failures of the server that are counted at present. Only of upstreams with a zone.",
        |it| it.is_shared.then(|| signed(it.peer.failures.fails)),
    ),
    ("peer_max_fails", "Failures after which the server is left alone for a time, 0 for never.", |it| {
        Some(signed(it.peer.terms.params.max_fails))
    }),
    ("peer_fail_timeout_seconds", "How long the server is left alone after failures.", |it| {
        Some(signed(it.peer.terms.params.fail_timeout))
    }),
    (
        "peer_last_failure_timestamp_seconds",
        "When a request to the server last failed, in seconds since 1970; absent if none did.",
        |it| it.peer.last_failure.map(|at| at.0),
    ),
];

/// The form: the upstreams are gone through once for each metric of peers.
#[derive(Clone)]
pub struct PrometheusForm {
    /// The metric that is next.
    next: usize,
    /// The metric that is being written, if it is not the state.
    row: Option<&'static PeerMetric>,
}

impl PrometheusForm {
    /// The metrics of upstreams whose names differ.
    pub fn new() -> Self {
        Self { next: 0, row: None }
    }
}

impl Form for PrometheusForm {
    fn answer(body: Vec<u8>) -> Answer {
        Answer::written_metrics(body)
    }

    fn pass(&mut self, out: &mut Vec<u8>, listings: &[Listing]) -> bool {
        let at = self.next.checked_sub(1);
        self.next = self.next.saturating_add(1);
        self.row = at.and_then(|at| ROWS.get(at));
        match (at, self.row) {
            (None, _) => {
                of_upstreams(out, listings);
                of_zones(out, listings);
                head(out, "peer_state", "1 for the state that the server is in, 0 for the others.");
                true
            }
            (Some(_), Some((name, help, _))) => {
                head(out, name, help);
                true
            }
            (Some(_), None) => false,
        }
    }

    fn peer(&mut self, out: &mut Vec<u8>, listing: &Listing, peer: &Peer, place: usize) {
        let Listing { snapshot, .. } = listing;
        let state = peer.state();
        let labels = PeerLabels { snapshot, peer, place };
        let Some((name, _, value)) = self.row else {
            for each in STATES {
                let labels = format_args!("{labels},state=\"{each}\"");
                sample(out, "peer_state", labels, u8::from(state == each));
            }
            return;
        };
        if let Some(value) = value(&Sampled { peer, state, is_shared: snapshot.is_shared() }) {
            sample(out, name, labels, value);
        }
    }
}

/// Adds what is known of whole upstreams.
fn of_upstreams(out: &mut Vec<u8>, listings: &[Listing]) {
    let snapshots = || listings.iter().map(|listing| &listing.snapshot);
    head(out, "info", "What the upstream is; always 1.");
    for snapshot in snapshots() {
        let labels = Labels(&[
            ("upstream", &snapshot.name),
            ("zone", snapshot.zone.as_deref().unwrap_or_default()),
            ("method", method(snapshot).unwrap_or("unknown")),
            ("dynamic", if snapshot.fixed.is_none() { "true" } else { "false" }),
        ]);
        sample(out, "info", labels, 1);
    }
    head(out, "revision", "Changes of the upstream at run time so far.");
    for snapshot in snapshots().filter(|snapshot| snapshot.fixed.is_none()) {
        sample(out, "revision", Labels(&[("upstream", &snapshot.name)]), snapshot.revision);
    }
    of_pools(out, listings);
    head(out, "peers", "Servers of the upstream by state.");
    for snapshot in snapshots().filter(|snapshot| snapshot.pools.is_none()) {
        for backup in [false, true] {
            let peers = snapshot.peers.iter().filter(|peer| peer.is_backup() == backup);
            let mut counts = STATES.map(|state| (state, 0_u64));
            for state in peers.map(Peer::state) {
                let count = counts.iter_mut().find(|(each, _)| *each == state);
                count.into_iter().for_each(|(_, count)| *count = count.saturating_add(1));
            }
            for (state, count) in counts {
                let labels = Labels(&[
                    ("upstream", &snapshot.name),
                    ("backup", truth(backup)),
                    ("state", state.as_str()),
                ]);
                sample(out, "peers", labels, count);
            }
        }
    }
}

/// A metric of pools: its name, what it is, and its value for one.
type PoolRow = (&'static str, &'static str, fn(&Pool) -> i64);

/// The metrics of pools.
const POOL_ROWS: [PoolRow; 3] = [
    ("pool_active", "Whether requests of the upstream are handed to the pool.", |pool| {
        i64::from(pool.standing == Standing::Active)
    }),
    ("pool_usable", "Whether the pool has a server that takes new requests.", |pool| {
        i64::from(is_usable(pool))
    }),
    ("pool_priority", "Priority of the pool, lower ones first.", |pool| i64::from(pool.priority)),
];

/// Adds what is known of pools, if there are any.
fn of_pools(out: &mut Vec<u8>, listings: &[Listing]) {
    let composed: Vec<(&str, &Pools)> = listings
        .iter()
        .filter_map(|Listing { snapshot, .. }| Some((snapshot.name.as_str(), snapshot.pools.as_ref()?)))
        .collect();
    if composed.is_empty() {
        return;
    }
    for (name, help, value) in POOL_ROWS {
        head(out, name, help);
        for (upstream, pools) in &composed {
            for pool in &pools.list {
                sample(out, name, Labels(&[("upstream", upstream), ("pool", &pool.name)]), value(pool));
            }
        }
    }
    let since = "pools_since_timestamp_seconds";
    head(out, since, "Since when the active pool is, or none is, in seconds since 1970.");
    for (upstream, pools) in &composed {
        sample(out, since, Labels(&[("upstream", upstream)]), pools.since.0);
    }
}

/// Adds the memory of zones, each once, as several upstreams may share it.
fn of_zones(out: &mut Vec<u8>, listings: &[Listing]) {
    let mut seen = HashSet::new();
    let zones: Vec<(&str, Memory)> = listings
        .iter()
        .filter_map(|Listing { snapshot, .. }| Some((snapshot.zone.as_deref()?, snapshot.memory?)))
        .filter(|(zone, _)| seen.insert(*zone))
        .collect();
    head(out, "zone_size_bytes", "Size of the shared memory zone.");
    for (zone, memory) in &zones {
        sample(out, "zone_size_bytes", Labels(&[("zone", zone)]), memory.size);
    }
    head(out, "zone_memory_bytes", "Memory of the zone in pages that are used, and that are free.");
    for (zone, memory) in &zones {
        let used = memory.pages_total.saturating_sub(memory.pages_free);
        for (state, pages) in [("used", used), ("free", memory.pages_free)] {
            let labels = Labels(&[("zone", zone), ("state", state)]);
            sample(out, "zone_memory_bytes", labels, pages.saturating_mul(memory.page));
        }
    }
}

/// Adds what a metric is.
fn head(out: &mut Vec<u8>, name: &str, help: &str) {
    // Writing to memory cannot fail, here and below.
    let _ = write!(out, "# HELP nginx_upstream_{name} {help}\n# TYPE nginx_upstream_{name} {GAUGE}\n");
}

/// Adds a sample.
fn sample(out: &mut Vec<u8>, name: &str, labels: impl Display, value: impl Display) {
    let _ = writeln!(out, "nginx_upstream_{name}{{{labels}}} {value}");
}

/// Labels, as they stand between the braces.
struct Labels<'a>(&'a [(&'a str, &'a str)]);

/// The labels that all series of a peer have.
struct PeerLabels<'a> {
    /// Its upstream.
    snapshot: &'a Snapshot,
    /// The peer.
    peer: &'a Peer,
    /// Its place.
    place: usize,
}

/// What tells a peer from the others of its upstream.
struct Identity {
    /// Its id.
    id: Option<ServerId>,
    /// Its place.
    place: usize,
    /// Whether others have ids.
    is_dynamic: bool,
}

/// The value of a label.
struct Escaped<'a>(&'a str);

impl Display for Labels<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, (name, value)) in self.0.iter().enumerate() {
            let comma = if at == 0 { "" } else { "," };
            write!(f, "{comma}{name}=\"{}\"", Escaped(value))?;
        }
        Ok(())
    }
}

impl Display for PeerLabels<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { snapshot, peer, place } = *self;
        write!(
            f,
            "upstream=\"{}\",id=\"{}\",server=\"{}\",address=\"{}\",backup=\"{}\"",
            Escaped(&snapshot.name),
            Identity { id: peer.id, place, is_dynamic: snapshot.fixed.is_none() },
            Escaped(&peer.server),
            Escaped(&peer.name),
            truth(peer.is_backup())
        )
    }
}

impl Display for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.id {
            Some(id) => id.fmt(f),
            // A number would be that of another server.
            None if self.is_dynamic => write!(f, "place {}", self.place),
            None => self.place.fmt(f),
        }
    }
}

impl Display for Escaped<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut rest = self.0;
        while let Some((at, special)) = rest.char_indices().find(|(_, c)| matches!(c, '\\' | '"' | '\n')) {
            let (plain, from) = rest.split_at(at);
            f.write_str(plain)?;
            f.write_char('\\')?;
            f.write_char(if special == '\n' { 'n' } else { special })?;
            // All of them are one byte long.
            rest = from.get(1..).unwrap_or_default();
        }
        f.write_str(rest)
    }
}

/// The word for a truth value.
fn truth(value: bool) -> &'static str {
    if value { "true" } else { "false" }
}

/// A number of nginx's, which keeps them in words of which half the range is enough.
fn signed(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::super::super::fake;
    use super::super::writer::whole;
    use super::*;
    use crate::model::snapshot::StaticReason;
    use crate::model::state::Admin;
    use crate::model::time::UnixTime;

    /// The metrics of some upstreams.
    fn metrics(snapshots: &[Snapshot]) -> String {
        let listing = |snapshot| Listing { snapshot, matched: None };
        whole(&PrometheusForm::new(), || snapshots.iter().cloned().map(listing).collect())
    }

    /// The lines of a metric, without its prefix.
    fn lines(page: &str, name: &str) -> Vec<String> {
        let wanted = format!("nginx_upstream_{name}{{");
        page.lines().filter_map(|line| line.strip_prefix(&wanted)).map(|line| format!("{{{line}")).collect()
    }

    #[test]
    fn labels_are_escaped() {
        assert_eq!(Labels(&[("a", "x\\y\"z\nw"), ("b", "")]).to_string(), r#"a="x\\y\"z\nw",b="""#);
    }

    #[test]
    fn each_series_is_there_once() {
        let mut down = fake::peer(1, "10.0.0.1");
        down.terms.admin = Admin::Down;
        down.last_failure = Some(UnixTime(7));
        let peers = vec![fake::peer(0, "10.0.0.1"), down, fake::backup(2, 0, "10.0.0.1")];
        let mut fixed = fake::upstream("v", vec![Peer { id: None, ..fake::peer(0, "a") }; 2]);
        fixed.fixed = Some(StaticReason::NoZone { kilobytes: 64 });
        fixed.zone = None;
        fixed.memory = None;
        let shared = Snapshot { zone: Some("u_zone".to_owned()), ..fake::upstream("w", Vec::new()) };
        let page = metrics(&[fake::upstream("u", peers), fixed, shared]);

        let mut seen = HashSet::new();
        for line in page.lines() {
            let series = line.rsplit_once(' ').unwrap().0;
            assert!(seen.insert(series.to_owned()), "{line}");
        }
        assert_eq!(lines(&page, "zone_size_bytes"), ["{zone=\"u_zone\"} 65536"]);
        assert_eq!(
            lines(&page, "zone_memory_bytes"),
            ["{zone=\"u_zone\",state=\"used\"} 24576", "{zone=\"u_zone\",state=\"free\"} 36864"]
        );
        assert_eq!(
            lines(&page, "peer_last_failure_timestamp_seconds"),
            ["{upstream=\"u\",id=\"1\",server=\"10.0.0.1\",address=\"10.0.0.1\",backup=\"false\"} 7"]
        );
        assert_eq!(lines(&page, "peer_up").len(), 5);
        assert!(
            lines(&page, "peers").contains(&"{upstream=\"u\",backup=\"false\",state=\"down\"} 1".to_owned())
        );
        // Each worker would tell another number.
        assert_eq!(lines(&page, "peer_fails").len(), 3);
    }

    #[test]
    fn a_server_without_an_id_is_not_taken_for_another() {
        let peers = vec![fake::peer(1, "a"), Peer { id: None, ..fake::peer(1, "a") }];
        let page = metrics(&[fake::upstream("u", peers)]);
        let up = lines(&page, "peer_weight");
        assert!(up.len() == 2 && up[0].contains("id=\"1\"") && up[1].contains("id=\"place 1\""), "{up:?}");
    }
}
