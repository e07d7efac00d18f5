//! The status as JSON.

use serde::ser::{Serialize, Serializer};

use crate::model::snapshot::{Memory, Snapshot, Totals, Zombies};
use crate::model::time::UnixTime;

use super::super::peer::PeerView;

/// The whole reply.
#[derive(serde::Serialize)]
pub struct StatusView<'a> {
    /// By name.
    upstreams: Upstreams<'a>,
}

impl<'a> StatusView<'a> {
    /// The view of some upstreams, whose names differ; `verbose` shows what betrays a leak.
    pub fn new(snapshots: &'a [Snapshot], verbose: bool, now: UnixTime) -> Self {
        Self { upstreams: Upstreams { snapshots, verbose, now } }
    }
}

/// The upstreams, written one after the other, so that 10,000 peers are not held a second time.
struct Upstreams<'a> {
    /// The upstreams.
    snapshots: &'a [Snapshot],
    /// Whether to show what betrays a leak.
    verbose: bool,
    /// The time of the reply.
    now: UnixTime,
}

impl Serialize for Upstreams<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let view = |snapshot| UpstreamView::new(snapshot, self.verbose, self.now);
        serializer.collect_map(self.snapshots.iter().map(|snapshot| (&snapshot.name, view(snapshot))))
    }
}

/// One upstream.
#[derive(serde::Serialize)]
struct UpstreamView<'a> {
    /// Name of its zone.
    zone: Option<&'a str>,
    /// How it chooses.
    method: Option<&'static str>,
    /// Whether it can be changed.
    dynamic: bool,
    /// Why not, if not.
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<String>,
    /// Number of changes so far.
    revision: u64,
    /// The peers.
    peers: Peers<'a>,
    /// Servers that were removed while requests used them, and are still used.
    #[serde(skip_serializing_if = "Option::is_none")]
    zombies: Option<u64>,
    /// Memory of its zone.
    #[serde(skip_serializing_if = "Option::is_none")]
    zone_memory: Option<MemoryView>,
    /// What betrays a leak.
    #[serde(skip_serializing_if = "Option::is_none")]
    leaks: Option<LeaksView>,
}

impl<'a> UpstreamView<'a> {
    /// The view of an upstream.
    fn new(snapshot: &'a Snapshot, verbose: bool, now: UnixTime) -> Self {
        let dynamic = snapshot.fixed.is_none();
        Self {
            zone: snapshot.zone.as_deref(),
            method: snapshot.method.map(|method| method.as_str()),
            dynamic,
            reason: snapshot.fixed.as_ref().map(ToString::to_string),
            revision: snapshot.revision.0,
            peers: Peers { snapshot, now },
            zombies: dynamic.then_some(snapshot.zombies.peers),
            zone_memory: snapshot.memory.map(MemoryView::from),
            leaks: (verbose && dynamic).then(|| LeaksView::from(snapshot)),
        }
    }
}

/// The peers of an upstream, written one after the other.
struct Peers<'a> {
    /// The upstream.
    snapshot: &'a Snapshot,
    /// The time of the reply.
    now: UnixTime,
}

impl Serialize for Peers<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(self.snapshot.peers.iter().map(|peer| PeerView::new(peer, self.now)))
    }
}

/// Memory of a zone, in bytes and in pages. A page that is used in part counts as used.
#[derive(serde::Serialize)]
struct MemoryView {
    /// Size of the zone.
    size: u64,
    /// Bytes in pages that are used.
    used: u64,
    /// Bytes in pages that are free.
    free: u64,
    /// The same in pages.
    pages: PagesView,
}

/// Pages of a zone.
#[derive(serde::Serialize)]
struct PagesView {
    /// Those that can be allocated at all.
    total: u64,
    /// Those that are free.
    free: u64,
}

impl From<Memory> for MemoryView {
    fn from(memory: Memory) -> Self {
        Self {
            size: memory.size,
            used: memory.pages_total.saturating_sub(memory.pages_free).saturating_mul(memory.page),
            free: memory.pages_free.saturating_mul(memory.page),
            pages: PagesView { total: memory.pages_total, free: memory.pages_free },
        }
    }
}

/// What betrays a leak, in both lists.
#[derive(serde::Serialize)]
struct LeaksView {
    /// The list of primaries.
    primary: PrimaryView,
    /// The list of backups, if there is one.
    backup: Option<TotalsView>,
    /// Names of what is not as it must be.
    faults: Vec<&'static str>,
}

/// The list of primaries. nginx keeps what was removed from either list in this one.
#[derive(serde::Serialize)]
struct PrimaryView {
    /// What it says of itself.
    #[serde(flatten)]
    totals: TotalsView,
    /// Peers that were removed while requests used them.
    zombies: u64,
    /// Requests that still use them.
    zombie_conns: u64,
}

impl From<&Snapshot> for LeaksView {
    fn from(snapshot: &Snapshot) -> Self {
        let Zombies { peers, conns } = snapshot.zombies;
        Self {
            primary: PrimaryView { totals: snapshot.primary.into(), zombies: peers, zombie_conns: conns },
            backup: snapshot.backup.map(TotalsView::from),
            faults: snapshot.faults.names(),
        }
    }
}

/// What a list says of itself, beside what was counted.
#[derive(serde::Serialize)]
struct TotalsView {
    /// nginx's `number`.
    number: u64,
    /// nginx's `total_weight`.
    total_weight: u64,
    /// nginx's `tries`.
    tries: u64,
    /// Peers in the list.
    counted: u64,
    /// Sum of their weights.
    counted_weight: u64,
    /// Those that balancers may choose.
    counted_usable: u64,
    /// Sum of their active requests.
    conns: u64,
    /// Sum of the references to them.
    refs: u64,
}

impl From<Totals> for TotalsView {
    fn from(totals: Totals) -> Self {
        Self {
            number: totals.number,
            total_weight: totals.total_weight,
            tries: totals.tries,
            counted: totals.counted,
            counted_weight: totals.counted_weight,
            counted_usable: totals.counted_usable,
            conns: totals.conns,
            refs: totals.refs,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::super::fake;
    use super::*;
    use crate::model::snapshot::StaticReason;

    /// The JSON of an upstream.
    fn json(snapshot: &Snapshot, verbose: bool) -> String {
        serde_json::to_string(&StatusView::new(std::slice::from_ref(snapshot), verbose, fake::NOW)).unwrap()
    }

    #[test]
    fn a_dynamic_upstream() {
        assert_eq!(
            json(&fake::upstream("u", Vec::new()), false),
            r#"{"upstreams":{"u":{"zone":"u_zone","method":"round_robin","dynamic":true,"revision":3,"peers":[],"#
                .to_owned()
                + r#""zombies":0,"zone_memory":{"size":65536,"used":24576,"free":36864,"pages":{"total":15,"free":9}}}}}"#
        );
    }

    #[test]
    fn a_static_upstream() {
        let mut snapshot = fake::upstream("u", Vec::new());
        snapshot.fixed = Some(StaticReason::NoZone);
        snapshot.zone = None;
        snapshot.method = None;
        snapshot.memory = None;
        let wanted = r#"{"upstreams":{"u":{"zone":null,"method":null,"dynamic":false,"#.to_owned()
            + r#""reason":"upstream has no \"zone\": add \"upstream_auto_zone 64k;\" or \"zone NAME 64k;\"","#
            + r#""revision":3,"peers":[]}}}"#;
        assert_eq!(json(&snapshot, false), wanted);
        // There are no lists of ours to look at.
        assert_eq!(json(&snapshot, true), wanted);
    }

    #[test]
    fn leaks_are_shown_when_asked_for() {
        let mut snapshot = fake::upstream("u", Vec::new());
        snapshot.zombies = Zombies { peers: 1, conns: 2 };
        let primary =
            r#","leaks":{"primary":{"number":3,"total_weight":3,"tries":3,"counted":3,"counted_weight":0,"#
                .to_owned()
                + r#""counted_usable":0,"conns":0,"refs":0,"zombies":1,"zombie_conns":2},"backup":"#;
        assert!(json(&snapshot, false).contains(r#""peers":[],"zombies":1,"#));
        assert!(json(&snapshot, true).ends_with(&(primary.clone() + r#"null,"faults":[]}}}}"#)));
        snapshot.backup = Some(snapshot.primary);
        assert!(json(&snapshot, true).contains(&(primary + r#"{"number":3,"#)));
        assert!(
            json(&snapshot, true).ends_with(r#""refs":0},"faults":[]}}}}"#),
            "the list of backups has no zombies"
        );
    }
}
