//! The status as text: a block for each upstream, a line for each peer.

use std::fmt::Write as _;
use std::io::Write as _;
use std::iter;

use crate::model::log::escaped;
use crate::model::snapshot::{Peer, Totals};
use crate::model::time::{Seconds, UnixTime};

use super::super::respond::Answer;
use super::listing::Listing;
use super::pools;
use super::writer::Form;

/// Spaces between two columns.
const GAP: usize = 2;

/// Number of columns.
const COLUMNS: usize = 10;

/// Heads of the columns.
const HEADS: [&str; COLUMNS] =
    ["id", "server", "address", "state", "weight", "active", "max_conns", "fails", "fail_timeout", "reason"];

/// The form.
#[derive(Clone)]
pub struct TextForm {
    /// Whether to show what betrays a leak.
    verbose: bool,
    /// The time of the reply.
    now: UnixTime,
    /// Whether the upstreams are yet to be written.
    is_due: bool,
    /// Widths of the columns of the present upstream, in characters.
    widths: [usize; COLUMNS],
    /// The row that is being written, kept for its memory.
    row: Cells,
}

/// The cells of a row.
#[derive(Clone, Default)]
struct Cells {
    /// One after the other.
    text: String,
    /// Where each ends.
    ends: [usize; COLUMNS],
}

impl TextForm {
    /// The text; `verbose` shows what betrays a leak.
    pub fn new(verbose: bool, now: UnixTime) -> Self {
        Self { verbose, now, is_due: true, widths: [0; COLUMNS], row: Cells::default() }
    }
}

impl Form for TextForm {
    fn answer(body: Vec<u8>) -> Answer {
        Answer::written_prose(body)
    }

    fn pass(&mut self, _out: &mut Vec<u8>, _listings: &[Listing]) -> bool {
        std::mem::take(&mut self.is_due)
    }

    fn head(&mut self, out: &mut Vec<u8>, listing: &Listing, place: usize) {
        if place > 0 {
            out.push(b'\n');
        }
        title(out, listing);
        if let Some(pools) = &listing.snapshot.pools {
            pools::lines(out, pools);
            return;
        }
        self.row.fill_with_heads();
        self.widths = [0; COLUMNS];
        self.row.widen(&mut self.widths);
        let heads = self.row.clone();
        // The columns of a long list are wide before its first line is sent.
        for peer in &listing.snapshot.peers {
            self.row.fill(peer, listing.snapshot.is_shared(), self.now);
            self.row.widen(&mut self.widths);
        }
        heads.write(out, &self.widths);
    }

    fn peer(&mut self, out: &mut Vec<u8>, listing: &Listing, peer: &Peer, _place: usize) {
        self.row.fill(peer, listing.snapshot.is_shared(), self.now);
        self.row.write(out, &self.widths);
    }

    fn tail(&mut self, out: &mut Vec<u8>, listing: &Listing) {
        let snapshot = &listing.snapshot;
        if !self.verbose || snapshot.fixed.is_some() {
            return;
        }
        totals(out, "primary", &snapshot.primary);
        if let Some(backup) = &snapshot.backup {
            totals(out, "backup", backup);
        }
        let zombies = snapshot.zombies;
        if zombies.peers > 0 {
            let _ = writeln!(out, "  zombies: {}, conns {}", zombies.peers, zombies.conns);
        }
    }
}

/// Adds the line above the table of an upstream.
fn title(out: &mut Vec<u8>, Listing { snapshot, matched }: &Listing) {
    let method = pools::method(snapshot).unwrap_or("unknown");
    // Writing to memory cannot fail, here as above and below.
    let _ = write!(out, "upstream \"{}\": {method}", escaped(&snapshot.name));
    let _ = match (&snapshot.zone, snapshot.memory) {
        (Some(zone), Some(memory)) => write!(
            out,
            ", zone \"{}\" with {} of {} pages free",
            escaped(zone),
            memory.pages_free,
            memory.pages_total
        ),
        (Some(zone), None) => write!(out, ", zone \"{}\"", escaped(zone)),
        (None, _) => Ok(()),
    };
    let _ = match (&snapshot.pools, &snapshot.fixed) {
        (Some(pools), _) => {
            pools::summary(out, pools);
            Ok(())
        }
        (None, Some(reason)) => write!(out, ", static: {reason}"),
        (None, None) => write!(out, ", revision {}", snapshot.revision),
    };
    if let Some(matched) = matched {
        let _ = write!(out, ", {matched} matched");
    }
    out.push(b'\n');
}

impl Cells {
    /// Takes the heads.
    fn fill_with_heads(&mut self) {
        self.text.clear();
        let mut cells = self.ends.iter_mut();
        for head in HEADS {
            self.text.push_str(head);
            end(&mut cells, &self.text);
        }
    }

    /// Takes the cells of a peer; those with what each worker counts for itself say nothing unless it is shared.
    fn fill(&mut self, peer: &Peer, is_shared: bool, now: UnixTime) {
        let Self { text, ends } = self;
        let params = &peer.terms.params;
        text.clear();
        let mut cells = ends.iter_mut();
        cell(text, peer.id.map(|id| id.0));
        end(&mut cells, text);
        text.push_str(&escaped(&peer.server));
        end(&mut cells, text);
        text.push_str(&escaped(&peer.name));
        end(&mut cells, text);
        text.push_str(peer.state().as_str());
        text.push_str(if peer.is_backup() { " backup" } else { "" });
        end(&mut cells, text);
        let counted = |value: u64| is_shared.then_some(value);
        for value in [Some(params.weight), counted(peer.active), Some(params.max_conns)] {
            cell(text, value);
            end(&mut cells, text);
        }
        cell(text, counted(peer.failures.fails));
        text.push('/');
        number(text, params.max_fails);
        end(&mut cells, text);
        let _ = write!(text, "{}", Seconds(params.fail_timeout));
        end(&mut cells, text);
        match peer.why(now) {
            Some(reason) => text.push_str(escaped(&reason.to_string()).trim_end()),
            None => text.push('-'),
        }
        end(&mut cells, text);
    }

    /// The cells.
    fn cells(&self) -> impl Iterator<Item = &str> {
        let mut start = 0;
        self.ends.iter().map(move |end| {
            let cell = self.text.get(start..*end).unwrap_or_default();
            start = *end;
            cell
        })
    }

    /// Makes the columns as wide as the cells.
    fn widen(&self, widths: &mut [usize; COLUMNS]) {
        for (width, cell) in widths.iter_mut().zip(self.cells()) {
            *width = cell.chars().count().max(*width);
        }
    }

    /// Adds a line whose cells begin at the same place as those of others with these widths.
    fn write(&self, out: &mut Vec<u8>, widths: &[usize; COLUMNS]) {
        let mut gap = GAP;
        for (width, cell) in widths.iter().zip(self.cells()) {
            out.extend(iter::repeat_n(b' ', gap));
            out.extend_from_slice(cell.as_bytes());
            gap = width.saturating_sub(cell.chars().count()).saturating_add(GAP);
        }
        out.push(b'\n');
    }
}

/// Ends the next cell.
fn end<'a>(cells: &mut impl Iterator<Item = &'a mut usize>, text: &str) {
    if let Some(cell) = cells.next() {
        *cell = text.len();
    }
}

/// Adds a number, or what stands for none.
fn cell(text: &mut String, value: Option<u64>) {
    match value {
        Some(value) => number(text, value),
        None => text.push('-'),
    }
}

/// Adds a number.
fn number(text: &mut String, value: u64) {
    // Most are one digit, and there are many.
    match u32::try_from(value).ok().and_then(|value| char::from_digit(value, 10)) {
        Some(digit) => text.push(digit),
        None => drop(write!(text, "{value}")),
    }
}

/// Adds what a list says of itself, beside what was counted.
fn totals(out: &mut Vec<u8>, list: &str, totals: &Totals) {
    let _ = writeln!(
        out,
        "  {list}: number {}/{}, total_weight {}/{}, tries {}/{}, conns {}, refs {}",
        totals.number,
        totals.counted,
        totals.total_weight,
        totals.counted_weight,
        totals.tries,
        totals.counted_usable,
        totals.conns,
        totals.refs
    );
}

#[cfg(test)]
mod tests {
    use super::super::super::fake::{self, NOW};
    use super::super::writer::whole;
    use super::*;
    use crate::model::snapshot::{Snapshot, StaticReason, Zombies};
    use crate::model::state::{Admin, Reason};

    /// The text of some upstreams.
    fn page(snapshots: &[Snapshot], verbose: bool, now: UnixTime) -> String {
        let listing = |snapshot| Listing { snapshot, matched: None };
        whole(&TextForm::new(verbose, now), || snapshots.iter().cloned().map(listing).collect())
    }

    #[test]
    fn a_part_of_the_peers_says_how_many_there_are() {
        let listings = || {
            let snapshot = fake::upstream("u", vec![fake::peer(0, "10.0.0.1")]);
            vec![Listing { snapshot, matched: Some(12) }]
        };
        assert!(whole(&TextForm::new(false, NOW), listings).starts_with(
            "upstream \"u\": round_robin, zone \"u_zone\" with 9 of 15 pages free, revision 3, 12 matched\n"
        ));
    }

    #[test]
    fn columns_begin_at_the_same_place() {
        let mut down = fake::peer(1, "app.example.com");
        down.name = "10.0.0.2:80".into();
        down.terms.admin = Admin::Down;
        down.terms.params.weight = 10;
        down.reason = Some(Reason::Operator {
            at: UnixTime(0),
            client: "::1".into(),
            user: Some("alice".to_owned()),
            note: Some("disk".to_owned()),
        });
        let snapshot =
            fake::upstream("u", vec![fake::peer(0, "10.0.0.1"), down, fake::backup(7, 0, "10.0.0.3")]);
        let mut other = fake::upstream("v", Vec::new());
        other.fixed = Some(StaticReason::NoZone { kilobytes: 64 });
        other.zone = None;
        assert_eq!(
            page(&[snapshot, other], false, NOW),
            "upstream \"u\": round_robin, zone \"u_zone\" with 9 of 15 pages free, revision 3\n\
             \x20 id  server           address      state      weight  active  max_conns  fails  fail_timeout  reason\n\
             \x20 0   10.0.0.1         10.0.0.1     up         1       0       0          0/1    10s           -\n\
             \x20 1   app.example.com  10.0.0.2:80  down       10      0       0          0/1    10s           \
             client ::1, user alice at 1970-01-01T00:00:00Z: disk\n\
             \x20 7   10.0.0.3         10.0.0.3     up backup  1       0       0          0/1    10s           -\n\
             \n\
             upstream \"v\": round_robin, static: upstream has no \"zone\": \
             add \"upstream_auto_zone 64k;\" or \"zone NAME 64k;\"\n\
             \x20 id  server  address  state  weight  active  max_conns  fails  fail_timeout  reason\n"
        );
    }

    #[test]
    fn what_one_worker_counts_is_not_shown() {
        let mut snapshot = fake::upstream("u", vec![fake::peer(0, "a")]);
        snapshot.zone = None;
        assert!(
            page(&[snapshot], false, NOW)
                .ends_with("up     1       -       0          -/1    10s           -\n")
        );
    }

    #[test]
    fn leaks_are_shown_when_asked_for() {
        let mut snapshot = fake::upstream("u", Vec::new());
        let primary = "  primary: number 3/3, total_weight 3/0, tries 3/0, conns 0, refs 0\n";
        assert!(page(&[snapshot.clone()], true, NOW).ends_with(primary));
        snapshot.zombies = Zombies { peers: 1, conns: 2 };
        assert!(page(&[snapshot], true, NOW).ends_with(&(primary.to_owned() + "  zombies: 1, conns 2\n")));
    }

    #[test]
    fn notes_cannot_forge_lines() {
        let mut peer = fake::peer(0, "a");
        peer.reason = Some(Reason::Operator {
            at: UnixTime(0),
            client: "::1".into(),
            user: None,
            note: Some("x\u{9b}y".to_owned()),
        });
        assert!(page(&[fake::upstream("u", vec![peer])], false, NOW).contains("x\\xc2\\x9by"));
    }
}
