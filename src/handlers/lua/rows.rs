//! Upstreams and their servers, as a script sees them.
//!
//! Numbers are doubles: scripts have no others.

use crate::forms::is_down;
use crate::model::id::UpstreamIndex;
use crate::model::snapshot::{Peer, Snapshot};
use crate::model::state::{Reason, State};
use crate::model::time::UnixTime;
use crate::ops::{OpError, Upstreams};

use super::failure::Failure;
use super::reply::{Part, Row, Space};

/// What stands for an id or a time that there is not.
const NONE: f64 = -1.0;

/// An upstream.
#[repr(C)]
pub struct UpstreamRow {
    /// Number of its changes.
    revision: f64,
    /// Its name.
    name: Part,
    /// That of its zone; empty for none.
    zone: Part,
    /// How it chooses; empty if unknown.
    method: Part,
    /// Why it cannot be changed; empty if it can.
    fixed: Part,
}

/// A server.
#[repr(C)]
pub struct PeerRow {
    /// Identity; -1 in a static upstream.
    id: f64,
    /// weight.
    weight: f64,
    /// max_conns.
    max_conns: f64,
    /// max_fails.
    max_fails: f64,
    /// fail_timeout, in seconds.
    fail_timeout: f64,
    /// Requests that it serves now.
    active: f64,
    /// Failures counted at present.
    fails: f64,
    /// When a request to it last failed; -1 for never.
    last_failure: f64,
    /// When somebody asked for its state; -1 if nobody did.
    at: f64,
    /// Text of the `server` directive.
    server: Part,
    /// Address.
    name: Part,
    /// Who asked for its state.
    client: Part,
    /// Its user; empty for none.
    user: Part,
    /// The words of who did.
    note: Part,
    /// Its state: a number of [`state`].
    state: u32,
    /// Why it is in that state: a number of [`reason`].
    reason: u32,
    /// Whether it is a backup.
    backup: u32,
    /// Whether balancers may not choose it.
    down: u32,
}

// SAFETY: a double and pairs of 32-bit numbers, one after the other: the sizes below are their sums.
unsafe impl Row for UpstreamRow {}
// SAFETY: doubles, then an even number of 32-bit numbers: likewise.
unsafe impl Row for PeerRow {}

// What lualib/ngx/upstream_control/ffi.lua takes them for.
const _: () = assert!(size_of::<UpstreamRow>() == 8 + 4 * 8);
const _: () = assert!(size_of::<PeerRow>() == 9 * 8 + 5 * 8 + 4 * 4);

/// Writes all upstreams.
pub fn upstreams(upstreams: &dyn Upstreams, space: &mut Space<'_>) -> Result<(), Failure> {
    let all = (0..upstreams.count()).map(|at| upstreams.only(UpstreamIndex(at), &[]));
    let all = all.collect::<Result<Vec<_>, _>>()?;
    space.reserve(all.len().saturating_mul(size_of::<UpstreamRow>()));
    space.set_count(all.len());
    for (at, snapshot) in all.iter().enumerate() {
        let row = upstream(snapshot, space);
        space.row(at.saturating_mul(size_of::<UpstreamRow>()), &row);
    }
    Ok(())
}

/// Writes an upstream and its servers.
pub fn peers(
    upstreams: &dyn Upstreams,
    name: &[u8],
    now: UnixTime,
    space: &mut Space<'_>,
) -> Result<(), Failure> {
    let name = str::from_utf8(name).map_err(|_| OpError::UpstreamNotFound(String::new()))?;
    let snapshot = upstreams.look(name)?;
    let (head, each) = (size_of::<UpstreamRow>(), size_of::<PeerRow>());
    space.reserve(head.saturating_add(snapshot.peers.len().saturating_mul(each)));
    space.set_count(snapshot.peers.len());
    let row = upstream(&snapshot, space);
    space.row(0, &row);
    for (at, one) in snapshot.peers.iter().enumerate() {
        let row = peer(one, now, space);
        space.row(head.saturating_add(at.saturating_mul(each)), &row);
    }
    Ok(())
}

/// The row of an upstream, whose texts are written.
fn upstream(snapshot: &Snapshot, space: &mut Space<'_>) -> UpstreamRow {
    UpstreamRow {
        revision: snapshot.revision.0 as f64,
        name: space.text(&snapshot.name),
        zone: space.text(snapshot.zone.as_deref().unwrap_or_default()),
        method: space.text(snapshot.method.map_or("", |method| method.as_str())),
        fixed: space.text(snapshot.fixed.as_ref().map(ToString::to_string).unwrap_or_default()),
    }
}

/// The row of a server, whose texts are written.
fn peer(peer: &Peer, now: UnixTime, space: &mut Space<'_>) -> PeerRow {
    let (params, why) = (peer.terms.params, peer.why(now));
    let (at, client, user, note) = match &why {
        Some(Reason::Operator { at, client, user, note }) => (
            at.0 as f64,
            space.text(&**client),
            space.text(user.as_deref().unwrap_or_default()),
            space.text(note.as_deref().unwrap_or_default()),
        ),
        _ => (NONE, Part::default(), Part::default(), Part::default()),
    };
    let server = space.text(&*peer.server);
    // Mostly the same words.
    let name = if peer.server == peer.name { server } else { space.text(&*peer.name) };
    PeerRow {
        id: peer.id.map_or(NONE, |id| id.0 as f64),
        weight: params.weight as f64,
        max_conns: params.max_conns as f64,
        max_fails: params.max_fails as f64,
        fail_timeout: params.fail_timeout as f64,
        active: peer.active as f64,
        fails: peer.failures.fails as f64,
        last_failure: peer.last_failure.map_or(NONE, |at| at.0 as f64),
        at,
        server,
        name,
        client,
        user,
        note,
        state: state(peer.state()),
        reason: reason(why.as_ref()),
        backup: u32::from(peer.is_backup()),
        down: u32::from(is_down(peer)),
    }
}

/// The number of a state.
fn state(state: State) -> u32 {
    match state {
        State::Up => 0,
        State::Down => 1,
        State::Draining => 2,
        State::Unavail => 3,
    }
}

/// The number of a reason.
fn reason(reason: Option<&Reason>) -> u32 {
    match reason {
        None => 0,
        Some(Reason::Configuration) => 1,
        Some(Reason::Operator { .. }) => 2,
        Some(Reason::Failures) => 3,
        Some(Reason::Retry) => 4,
    }
}
