//! The status as JSON.

use serde::Serialize;

use crate::model::snapshot::{Memory, Peer, Snapshot, Totals, Zombies};
use crate::model::time::UnixTime;

use super::super::peer::{Fields, PeerView};
use super::super::respond::Answer;
use super::listing::Listing;
use super::pools::{PoolsView, method};
use super::writer::Form;

/// The form.
#[derive(Clone)]
pub struct JsonForm {
    /// Whether to show what betrays a leak.
    verbose: bool,
    /// What to show of a peer.
    fields: Fields,
    /// The time of the reply.
    now: UnixTime,
    /// Whether the upstreams are yet to be written.
    is_due: bool,
}

impl JsonForm {
    /// The JSON of some upstreams, whose names differ; `verbose` shows what betrays a leak.
    pub fn new(verbose: bool, fields: Fields, now: UnixTime) -> Self {
        Self { verbose, fields, now, is_due: true }
    }
}

impl Form for JsonForm {
    fn answer(body: Vec<u8>) -> Answer {
        Answer::written_json(body)
    }

    fn pass(&mut self, out: &mut Vec<u8>, _listings: &[Listing]) -> bool {
        out.extend_from_slice(if self.is_due { br#"{"upstreams":{"# } else { b"}}\n" });
        std::mem::take(&mut self.is_due)
    }

    fn head(&mut self, out: &mut Vec<u8>, listing: &Listing, place: usize) {
        comma(out, place);
        write(out, &listing.snapshot.name);
        out.push(b':');
        write(out, &HeadView::from(listing));
        // The object goes on.
        out.pop();
        out.extend_from_slice(br#","peers":["#);
    }

    fn peer(&mut self, out: &mut Vec<u8>, _listing: &Listing, peer: &Peer, place: usize) {
        comma(out, place);
        write(out, &PeerView::of(peer, self.now, self.fields));
    }

    fn tail(&mut self, out: &mut Vec<u8>, listing: &Listing) {
        out.push(b']');
        let start = out.len();
        write(out, &TailView::new(&listing.snapshot, self.verbose));
        // The fields go on in the object of the head, if there are any.
        match out.get_mut(start..) {
            Some([brace, b'"', ..]) => *brace = b',',
            _ => drop(out.drain(start..out.len().saturating_sub(1))),
        }
    }
}

/// Adds a comma, but not before the first.
fn comma(out: &mut Vec<u8>, place: usize) {
    if place > 0 {
        out.push(b',');
    }
}

/// Adds a value.
fn write(out: &mut Vec<u8>, value: &impl Serialize) {
    // Plain fields into memory: this cannot fail.
    let _ = serde_json::to_writer(out, value);
}

/// One upstream, up to its peers.
#[derive(Serialize)]
struct HeadView<'a> {
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
    /// How many peers are what was asked for, if only some were.
    #[serde(skip_serializing_if = "Option::is_none")]
    matched: Option<usize>,
    /// What has pools in the place of peers has these fields as well.
    #[serde(flatten)]
    pools: Option<PoolsView<'a>>,
}

impl<'a> From<&'a Listing> for HeadView<'a> {
    fn from(Listing { snapshot, matched }: &'a Listing) -> Self {
        Self {
            zone: snapshot.zone.as_deref(),
            method: method(snapshot),
            dynamic: snapshot.fixed.is_none(),
            reason: snapshot.fixed.as_ref().map(ToString::to_string),
            revision: snapshot.revision.0,
            matched: *matched,
            pools: snapshot.pools.as_ref().map(PoolsView::from),
        }
    }
}

/// One upstream, after its peers.
#[derive(Serialize)]
struct TailView {
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

impl TailView {
    /// The view of an upstream.
    fn new(snapshot: &Snapshot, verbose: bool) -> Self {
        let dynamic = snapshot.fixed.is_none();
        Self {
            zombies: dynamic.then_some(snapshot.zombies.peers),
            zone_memory: snapshot.memory.map(MemoryView::from),
            leaks: (verbose && dynamic).then(|| LeaksView::from(snapshot)),
        }
    }
}

/// Memory of a zone, in bytes and in pages. A page that is used in part counts as used.
#[derive(Serialize)]
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
#[derive(Serialize)]
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
#[derive(Serialize)]
struct LeaksView {
    /// The list of primaries.
    primary: PrimaryView,
    /// The list of backups, if there is one.
    backup: Option<TotalsView>,
    /// Names of what is not as it must be.
    faults: Vec<&'static str>,
}

/// The list of primaries. nginx keeps what was removed from either list in this one.
#[derive(Serialize)]
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
#[derive(Serialize)]
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
    use super::super::writer::whole;
    use super::*;
    use crate::model::snapshot::StaticReason;

    /// The JSON of an upstream.
    fn json(snapshot: &Snapshot, verbose: bool) -> String {
        let listings = || vec![Listing { snapshot: snapshot.clone(), matched: None }];
        let json = whole(&JsonForm::new(verbose, Fields::ALL, fake::NOW), listings);
        json.strip_suffix('\n').unwrap().to_owned()
    }

    #[test]
    fn several_upstreams_and_peers() {
        let mut fixed = fake::upstream("v", vec![fake::peer(3, "c")]);
        fixed.fixed = Some(StaticReason::Excluded);
        fixed.memory = None;
        let upstreams =
            || vec![fake::upstream("u", vec![fake::peer(1, "a"), fake::peer(2, "b")]), fixed.clone()];
        let listings =
            |matched| move || upstreams().into_iter().map(|snapshot| Listing { snapshot, matched }).collect();
        let form = JsonForm::new(false, Fields::named("id").unwrap(), fake::NOW);
        assert_eq!(
            whole(&form, listings(Some(5))),
            r#"{"upstreams":{"u":{"zone":"u_zone","method":"round_robin","dynamic":true,"revision":3,"matched":5,"#
                .to_owned()
                + r#""peers":[{"id":1},{"id":2}],"#
                + r#""zombies":0,"zone_memory":{"size":65536,"used":24576,"free":36864,"pages":{"total":15,"free":9}}},"#
                + r#""v":{"zone":"v_zone","method":"round_robin","dynamic":false,"#
                + r#""reason":"\"upstream_dynamic off\" is set","revision":3,"matched":5,"peers":[{"id":3}]}}}"#
                + "\n"
        );
        assert_eq!(whole(&form, Vec::new), "{\"upstreams\":{}}\n");
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
        snapshot.fixed = Some(StaticReason::NoZone { kilobytes: 64 });
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
