//! The status as metrics, in the text format of Prometheus (exposition format 0.0.4), named by its guide: a base unit at
//! the end of a name, and sums over a label that mean something.
//!
//! The format wants all samples of a metric together, and each series once. A series of a server is that of its id, or,
//! in an upstream that cannot be changed, where servers have none, of its place.

use std::collections::HashSet;
use std::fmt::{Display, Write};

use crate::model::snapshot::{Memory, Peer, Snapshot};
use crate::model::state::State;
use crate::model::time::UnixTime;

/// The states, each of which is a series.
const STATES: [State; 4] = [State::Up, State::Down, State::Draining, State::Unavail];

/// The kind of a metric. Nothing here only ever grows.
const GAUGE: &str = "gauge";

/// A peer and the labels that all its series have.
struct Labelled<'a> {
    /// The peer.
    peer: &'a Peer,
    /// Its state.
    state: State,
    /// Whether nginx counts for all workers together; otherwise each has numbers of its own.
    is_shared: bool,
    /// The labels, without braces.
    labels: String,
}

/// A metric of peers: its name, what it is, and its value for a peer, if it has one.
type Row = (&'static str, &'static str, fn(&Labelled<'_>) -> Option<i64>);

/// The metrics of peers that have one value each.
const ROWS: [Row; 8] = [
    ("peer_up", "Whether the server takes new requests.", |it| Some(i64::from(it.state == State::Up))),
    (
        "peer_active_connections",
        "Connections to the server that are in use now. Only of upstreams with a zone.",
        |it| it.is_shared.then(|| signed(it.peer.active)),
    ),
    ("peer_max_connections", "Most connections to the server at a time (max_conns), 0 for no limit.", |it| {
        Some(signed(it.peer.params.max_conns))
    }),
    ("peer_weight", "Weight of the server.", |it| Some(signed(it.peer.params.weight))),
    (
        "peer_fails",
        "Failures of the server that are counted at present. Only of upstreams with a zone.",
        |it| it.is_shared.then(|| signed(it.peer.failures.fails)),
    ),
    ("peer_max_fails", "Failures after which the server is left alone for a time, 0 for never.", |it| {
        Some(signed(it.peer.params.max_fails))
    }),
    ("peer_fail_timeout_seconds", "How long the server is left alone after failures.", |it| {
        Some(signed(it.peer.params.fail_timeout))
    }),
    (
        "peer_last_failure_timestamp_seconds",
        "When a request to the server last failed, in seconds since 1970; absent if none did.",
        |it| it.peer.last_failure.map(|at| at.0),
    ),
];

/// The metrics of all these upstreams, whose names differ.
pub fn metrics(snapshots: &[Snapshot], now: UnixTime) -> String {
    let mut page = String::new();
    of_upstreams(&mut page, snapshots, now);
    of_zones(&mut page, snapshots);
    let peers: Vec<_> = snapshots.iter().flat_map(|snapshot| labelled(snapshot, now)).collect();
    head(&mut page, "peer_state", "1 for the state that the server is in, 0 for the others.");
    for it in &peers {
        for state in STATES {
            let labels = format!("{},state=\"{state}\"", it.labels);
            sample(&mut page, "peer_state", &labels, u8::from(it.state == state));
        }
    }
    for (name, help, value) in ROWS {
        head(&mut page, name, help);
        for it in &peers {
            if let Some(value) = value(it) {
                sample(&mut page, name, &it.labels, value);
            }
        }
    }
    page
}

/// Adds what is known of whole upstreams.
fn of_upstreams(page: &mut String, snapshots: &[Snapshot], now: UnixTime) {
    head(page, "info", "What the upstream is; always 1.");
    for snapshot in snapshots {
        let labels = labels(&[
            ("upstream", &snapshot.name),
            ("zone", snapshot.zone.as_deref().unwrap_or_default()),
            ("method", snapshot.method.map_or("unknown", |method| method.as_str())),
            ("dynamic", if snapshot.fixed.is_none() { "true" } else { "false" }),
        ]);
        sample(page, "info", &labels, 1);
    }
    head(page, "revision", "Changes of the upstream at run time so far.");
    for snapshot in snapshots.iter().filter(|snapshot| snapshot.fixed.is_none()) {
        sample(page, "revision", &labels(&[("upstream", &snapshot.name)]), snapshot.revision);
    }
    head(page, "peers", "Servers of the upstream by state.");
    for snapshot in snapshots {
        for backup in [false, true] {
            for state in STATES {
                let is_counted = |peer: &&Peer| peer.is_backup() == backup && peer.state(now) == state;
                let count = snapshot.peers.iter().filter(is_counted).count();
                let labels = labels(&[
                    ("upstream", &snapshot.name),
                    ("backup", truth(backup)),
                    ("state", state.as_str()),
                ]);
                sample(page, "peers", &labels, count);
            }
        }
    }
}

/// Adds the memory of zones, each once, as several upstreams may share it.
fn of_zones(page: &mut String, snapshots: &[Snapshot]) {
    let mut seen = HashSet::new();
    let zones: Vec<(&str, Memory)> = snapshots
        .iter()
        .filter_map(|snapshot| Some((snapshot.zone.as_deref()?, snapshot.memory?)))
        .filter(|(zone, _)| seen.insert(*zone))
        .collect();
    head(page, "zone_size_bytes", "Size of the shared memory zone.");
    for (zone, memory) in &zones {
        sample(page, "zone_size_bytes", &labels(&[("zone", zone)]), memory.size);
    }
    head(page, "zone_memory_bytes", "Memory of the zone in pages that are used, and that are free.");
    for (zone, memory) in &zones {
        let used = memory.pages_total.saturating_sub(memory.pages_free);
        for (state, pages) in [("used", used), ("free", memory.pages_free)] {
            let labels = labels(&[("zone", zone), ("state", state)]);
            sample(page, "zone_memory_bytes", &labels, pages.saturating_mul(memory.page));
        }
    }
}

/// The peers of an upstream.
fn labelled<'a>(snapshot: &'a Snapshot, now: UnixTime) -> impl Iterator<Item = Labelled<'a>> {
    let is_dynamic = snapshot.fixed.is_none();
    snapshot.peers.iter().enumerate().map(move |(place, peer)| {
        let id = match peer.id {
            Some(id) => id.to_string(),
            // A number would be that of another server.
            None if is_dynamic => format!("place {place}"),
            None => place.to_string(),
        };
        let labels = labels(&[
            ("upstream", &snapshot.name),
            ("id", &id),
            ("server", &peer.server),
            ("address", &peer.name),
            ("backup", truth(peer.is_backup())),
        ]);
        Labelled { peer, state: peer.state(now), is_shared: snapshot.zone.is_some(), labels }
    })
}

/// Adds what a metric is.
fn head(page: &mut String, name: &str, help: &str) {
    // Writing to a String cannot fail, here and below.
    let _ = write!(page, "# HELP nginx_upstream_{name} {help}\n# TYPE nginx_upstream_{name} {GAUGE}\n");
}

/// Adds a sample.
fn sample(page: &mut String, name: &str, labels: &str, value: impl Display) {
    let _ = writeln!(page, "nginx_upstream_{name}{{{labels}}} {value}");
}

/// Labels, as they stand between the braces.
fn labels(labels: &[(&str, &str)]) -> String {
    let mut out = String::new();
    for (name, value) in labels {
        let comma = if out.is_empty() { "" } else { "," };
        let _ = write!(out, "{comma}{name}=\"");
        for character in value.chars() {
            match character {
                '\\' => out.push_str("\\\\"),
                '"' => out.push_str("\\\""),
                '\n' => out.push_str("\\n"),
                character => out.push(character),
            }
        }
        out.push('"');
    }
    out
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
    use super::super::super::fake::{self, NOW};
    use super::*;
    use crate::model::snapshot::StaticReason;
    use crate::model::state::Admin;

    /// The lines of a metric, without its prefix.
    fn lines(page: &str, name: &str) -> Vec<String> {
        let wanted = format!("nginx_upstream_{name}{{");
        page.lines().filter_map(|line| line.strip_prefix(&wanted)).map(|line| format!("{{{line}")).collect()
    }

    #[test]
    fn labels_are_escaped() {
        assert_eq!(labels(&[("a", "x\\y\"z\nw"), ("b", "")]), r#"a="x\\y\"z\nw",b="""#);
    }

    #[test]
    fn each_series_is_there_once() {
        let mut down = fake::peer(1, "10.0.0.1");
        down.admin = Admin::Down;
        down.last_failure = Some(UnixTime(7));
        let peers = vec![fake::peer(0, "10.0.0.1"), down, fake::backup(2, 0, "10.0.0.1")];
        let mut fixed = fake::upstream("v", vec![Peer { id: None, ..fake::peer(0, "a") }; 2]);
        fixed.fixed = Some(StaticReason::NoZone);
        fixed.zone = None;
        fixed.memory = None;
        let shared = Snapshot { zone: Some("u_zone".to_owned()), ..fake::upstream("w", Vec::new()) };
        let page = metrics(&[fake::upstream("u", peers), fixed, shared], NOW);

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
        let page = metrics(&[fake::upstream("u", peers)], NOW);
        let up = lines(&page, "peer_weight");
        assert!(up.len() == 2 && up[0].contains("id=\"1\"") && up[1].contains("id=\"place 1\""), "{up:?}");
    }
}
