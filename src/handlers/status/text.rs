//! The status as text: a block for each upstream, a line for each peer.

use std::fmt::Write;

use crate::model::snapshot::{Peer, Snapshot, Totals};
use crate::model::time::{Seconds, UnixTime};
use crate::nginx::log::escaped;

/// Spaces between two columns.
const GAP: usize = 2;

/// Heads of the columns.
const HEADS: [&str; 10] =
    ["id", "server", "address", "state", "weight", "active", "max_conns", "fails", "fail_timeout", "reason"];

/// The page; `verbose` shows what betrays a leak.
pub fn page(snapshots: &[Snapshot], verbose: bool, now: UnixTime) -> String {
    let mut page = String::new();
    for snapshot in snapshots {
        if !page.is_empty() {
            page.push('\n');
        }
        block(&mut page, snapshot, verbose, now);
    }
    page
}

/// Adds one upstream.
fn block(page: &mut String, snapshot: &Snapshot, verbose: bool, now: UnixTime) {
    let method = snapshot.method.map_or("unknown", |method| method.as_str());
    let _ = write!(page, "upstream \"{}\": {method}", escaped(&snapshot.name));
    match (&snapshot.zone, snapshot.memory) {
        (Some(zone), Some(memory)) => {
            let _ = write!(
                page,
                ", zone \"{}\" with {} of {} pages free",
                escaped(zone),
                memory.pages_free,
                memory.pages_total
            );
        }
        (Some(zone), None) => {
            let _ = write!(page, ", zone \"{}\"", escaped(zone));
        }
        (None, _) => {}
    }
    // Writing to a String cannot fail, here as above and below.
    let _ = match &snapshot.fixed {
        Some(reason) => writeln!(page, ", static: {reason}"),
        None => writeln!(page, ", revision {}", snapshot.revision),
    };
    let rows = snapshot.peers.iter().map(|peer| row(peer, now));
    table(page, &std::iter::once(HEADS.map(str::to_owned)).chain(rows).collect::<Vec<_>>());
    if verbose && snapshot.fixed.is_none() {
        totals(page, "primary", &snapshot.primary);
        if let Some(backup) = &snapshot.backup {
            totals(page, "backup", backup);
        }
        let zombies = snapshot.zombies;
        if zombies.peers > 0 {
            let _ = writeln!(page, "  zombies: {}, conns {}", zombies.peers, zombies.conns);
        }
    }
}

/// The columns of a peer.
fn row(peer: &Peer, now: UnixTime) -> [String; 10] {
    let backup = if peer.is_backup() { " backup" } else { "" };
    let reason = peer.why(now).map(|reason| escaped(&reason.to_string()).into_owned());
    [
        peer.id.map_or_else(|| "-".to_owned(), |id| id.to_string()),
        escaped(&peer.server).into_owned(),
        escaped(&peer.name).into_owned(),
        format!("{}{backup}", peer.state(now)),
        peer.params.weight.to_string(),
        peer.active.to_string(),
        peer.params.max_conns.to_string(),
        format!("{}/{}", peer.failures.fails, peer.params.max_fails),
        Seconds(peer.params.fail_timeout).to_string(),
        reason.unwrap_or_else(|| "-".to_owned()),
    ]
}

/// Adds rows whose columns begin at the same place in each.
fn table(page: &mut String, rows: &[[String; 10]]) {
    let mut widths = [0; 10];
    for row in rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = cell.chars().count().max(*width);
        }
    }
    for row in rows {
        let mut line = " ".to_owned();
        for (width, cell) in widths.iter().zip(row) {
            let _ = write!(line, " {cell:width$}{:gap$}", "", gap = GAP.saturating_sub(1));
        }
        page.push_str(line.trim_end());
        page.push('\n');
    }
}

/// Adds what a list says of itself, beside what was counted.
fn totals(page: &mut String, list: &str, totals: &Totals) {
    let _ = writeln!(
        page,
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
    use super::*;
    use crate::model::snapshot::{StaticReason, Zombies};
    use crate::model::state::{Admin, Reason};

    #[test]
    fn columns_begin_at_the_same_place() {
        let mut down = fake::peer(1, "app.example.com");
        down.name = "10.0.0.2:80".into();
        down.admin = Admin::Down;
        down.params.weight = 10;
        down.reason =
            Some(Reason::Operator { at: UnixTime(0), client: "::1".into(), note: Some("disk".to_owned()) });
        let snapshot =
            fake::upstream("u", vec![fake::peer(0, "10.0.0.1"), down, fake::backup(7, 0, "10.0.0.3")]);
        let mut other = fake::upstream("v", Vec::new());
        other.fixed = Some(StaticReason::NoZone);
        other.zone = None;
        assert_eq!(
            page(&[snapshot, other], false, NOW),
            "upstream \"u\": round_robin, zone \"u_zone\" with 9 of 15 pages free, revision 3\n\
             \x20 id  server           address      state      weight  active  max_conns  fails  fail_timeout  reason\n\
             \x20 0   10.0.0.1         10.0.0.1     up         1       0       0          0/1    10s           -\n\
             \x20 1   app.example.com  10.0.0.2:80  down       10      0       0          0/1    10s           \
             client ::1 at 1970-01-01T00:00:00Z: disk\n\
             \x20 7   10.0.0.3         10.0.0.3     up backup  1       0       0          0/1    10s           -\n\
             \n\
             upstream \"v\": round_robin, static: upstream has no \"zone\": \
             add \"upstream_auto_zone 64k;\" or \"zone NAME 64k;\"\n\
             \x20 id  server  address  state  weight  active  max_conns  fails  fail_timeout  reason\n"
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
            note: Some("x\u{9b}y".to_owned()),
        });
        assert!(page(&[fake::upstream("u", vec![peer])], false, NOW).contains("x\\xc2\\x9by"));
    }
}
