//! An upstream at one moment: its peers, and what the store knows of them.

use std::time::Duration;

use crate::model::id::{Revision, ServerId};
use crate::model::params::Params;
use crate::model::server::Terms;
use crate::model::snapshot::{Faults, Method, Peer, Snapshot, Totals, Zombies};
use crate::model::state::{Admin, Failures, Reason};
use crate::model::text::{SharedText, Text};
use crate::model::time::UnixTime;
use crate::nginx::death;
use crate::nginx::upstream::Configured;
use crate::ops::{self, Guard, Lookup, OpError, Selector};
use crate::store::adopt::{Claim, Claimed, Wishes};
use crate::store::records;
use crate::store::{Locked, PATIENCE};
use crate::zone::setting::{Abilities, admin_of};
use crate::zone::{self, Row};

use super::catch_up::{apply_wishes, catch_up};
use super::known::Known;
use super::room;
use super::upstream::{Control, Stuck, Upstream};

/// Reasons that a view makes room for before it takes the lock.
const REASONS: usize = 16;

/// Attempts to see an upstream between two changes: with many servers a look takes as long as many changes.
const ATTEMPTS: usize = 4;

/// A changeable upstream at one moment.
pub struct View {
    /// The moment.
    snapshot: Snapshot,
    /// How it chooses.
    method: Method,
    /// How often the lists changed.
    membership: u64,
    /// Whether the method has a list of backups.
    has_backups: bool,
    /// How many usable servers a change must leave.
    guard: Option<Guard>,
    /// Whether the servers are those of an older configuration.
    is_old: bool,
}

/// What the store knows of all peers of a copy, in their order.
struct Knowledge {
    /// One for each row.
    known: Vec<Known>,
    /// Reasons, each with the row that it belongs to, in the order of the rows.
    reasons: Vec<(usize, records::Reason)>,
    /// Revision of the upstream.
    revision: u64,
}

impl View {
    /// A moment of a changeable upstream.
    ///
    /// # Errors
    ///
    /// The lock that is not to be had; or there is no memory.
    pub fn take(upstream: &Upstream, control: &Control) -> Result<Self, OpError> {
        let _room = room::to_look(&control.zone)?;
        Ok(Self::one(upstream, control)?)
    }

    /// The same, for which there is memory.
    ///
    /// # Errors
    ///
    /// The lock that is not to be had.
    fn one(upstream: &Upstream, control: &Control) -> Result<Self, Stuck> {
        for _ in 0..ATTEMPTS {
            let (view, is_one) = Self::look(upstream, control)?;
            if is_one {
                return Ok(view);
            }
        }
        // Changes come faster than one can look: they wait for this look.
        for _ in 0..ATTEMPTS {
            if let Some(view) = Self::look_locked(upstream, control)? {
                return Ok(view);
            }
        }
        Self::look(upstream, control).map(|(view, _)| view)
    }

    /// The same, with the lock of the store in hand, which keeps changes away. None inside if there was too little room,
    /// or if a change is not shown yet.
    fn look_locked(upstream: &Upstream, control: &Control) -> Result<Option<Self>, Stuck> {
        catch_up(control, PATIENCE);
        let mut copy = control.zone.room();
        let mut known = vec![Known::default(); copy.rows.capacity()];
        let mut reasons = Vec::with_capacity(copy.rows.capacity());
        let locked = control.lock()?;
        let fits = control.zone.copy_within(&mut copy).ok_or(Stuck::Peers)?;
        let revision = locked.revision(control.record);
        let is_shown = control.applied() == revision;
        ask(control, &locked, &copy, &mut known, &mut reasons);
        drop(locked);
        let knowledge = Knowledge { known, reasons, revision };
        Ok((fits && is_shown).then(|| Self::new(upstream, control, copy, &knowledge)))
    }

    /// The same, and whether nothing changed while it was taken. The lists and the store are read one after the other. A
    /// view with a change in between, or of lists that do not show the last one yet, has the revision before it, so that
    /// no plan is carried out that was made with it.
    pub fn look(upstream: &Upstream, control: &Control) -> Result<(Self, bool), Stuck> {
        let mut room = REASONS;
        loop {
            catch_up(control, PATIENCE);
            let locked = control.lock()?;
            let (before, shown) = (locked.revision(control.record), control.applied());
            drop(locked);
            let copy = control.zone.copy().ok_or(Stuck::Peers)?;
            if adopt_new_peers(control, &copy, PATIENCE) {
                continue;
            }
            match know(control, &copy, room)? {
                Ok(mut knowledge) => {
                    let is_one = knowledge.revision == before && before == shown;
                    knowledge.revision = shown;
                    return Ok((Self::new(upstream, control, copy, &knowledge), is_one));
                }
                Err(needed) => room = needed.saturating_add(REASONS),
            }
        }
    }

    /// Joins what was copied from the zone with what the store knows.
    fn new(upstream: &Upstream, control: &Control, mut copy: zone::Copy, knowledge: &Knowledge) -> Self {
        let text = SharedText::new(std::mem::take(&mut copy.text));
        let mut clients = None;
        let mut reasons = knowledge.reasons.iter().peekable();
        let peers = copy.rows.iter().zip(&knowledge.known).enumerate().map(|(at, (row, known))| {
            let reason = reasons.next_if(|(of, _)| *of == at).map(|(_, reason)| reason);
            peer((&copy, &text), row, known, reason, &mut clients, control.abilities)
        });
        let snapshot = Snapshot {
            revision: Revision(knowledge.revision),
            memory: control.zone.memory(),
            peers: peers.collect(),
            primary: copy.primary,
            backup: copy.backup,
            zombies: copy.zombies,
            faults: copy.faults,
            ..empty(upstream)
        };
        Self {
            snapshot,
            method: control.abilities.method,
            membership: copy.membership,
            has_backups: upstream.conf.has_backups(),
            guard: upstream.guard,
            is_old: control.is_old.get(),
        }
    }

    /// The moment, for a replacement of all servers.
    pub fn into_whole(self) -> ops::Whole {
        let Self { snapshot, method, membership, has_backups, guard, .. } = self;
        let Snapshot { name, revision, peers, .. } = snapshot;
        ops::Whole { name, revision, membership, method, has_backups, guard, peers }
    }

    /// Any upstream at one moment.
    ///
    /// # Errors
    ///
    /// There is no memory.
    pub fn snapshot(upstream: &Upstream) -> Result<Snapshot, OpError> {
        let mut snapshot = empty(upstream);
        if let Some(control) = upstream.control() {
            let _room = room::to_look(&control.zone)?;
            let stuck = match Self::one(upstream, control) {
                Ok(view) => return Ok(view.snapshot),
                Err(stuck) => stuck,
            };
            snapshot.fixed = Some(stuck.into());
            if stuck == Stuck::Peers {
                return Ok(snapshot);
            }
        }
        let peers = upstream.peers();
        let _room = match &peers {
            Some(peers) => room::to_look(peers)?,
            None => room::to_list(upstream.conf.count())?,
        };
        if let Some(peers) = peers
            && let Some(mut copy) = peers.copy()
        {
            let text = SharedText::new(std::mem::take(&mut copy.text));
            let told_by_file = |row: &Row| {
                peer((&copy, &text), row, &Known::default(), None, &mut None, told_nothing(upstream))
            };
            snapshot.peers = copy.rows.iter().map(told_by_file).collect();
            snapshot.memory = peers.memory();
            snapshot.primary = copy.primary;
            snapshot.backup = copy.backup;
        } else {
            snapshot.peers = configured(upstream);
        }
        Ok(snapshot)
    }
}

impl Lookup for View {
    fn revision(&self) -> Revision {
        self.snapshot.revision
    }

    fn membership(&self) -> u64 {
        self.membership
    }

    fn method(&self) -> Method {
        self.method
    }

    fn has_backups(&self) -> bool {
        self.has_backups
    }

    fn guard(&self) -> Option<Guard> {
        self.guard
    }

    fn usable(&self) -> (usize, usize) {
        let peers = &self.snapshot.peers;
        (peers.iter().filter(|peer| peer.terms.admin == Admin::Up).count(), peers.len())
    }

    fn total_weight(&self) -> u64 {
        self.snapshot.peers.iter().fold(0, |sum, peer| sum.saturating_add(peer.terms.params.weight))
    }

    fn select(&self, selector: &Selector) -> Result<Vec<Peer>, OpError> {
        let found: Vec<_> =
            self.snapshot.peers.iter().filter(|peer| selector.chooses(peer)).cloned().collect();
        // The new configuration may have it, or more of them. By the next attempt a worker of that answers.
        let may_be_more = found.is_empty() || matches!(selector, Selector::Host(_));
        if self.is_old && may_be_more { Err(OpError::Reloaded) } else { Ok(found) }
    }

    fn place(&self, peers: &mut [Peer]) {
        peers.sort_by_key(|peer| peer.slot);
    }
}

/// The abilities of an upstream that is only read: none matter.
fn told_nothing(upstream: &Upstream) -> Abilities {
    Abilities { method: upstream.method.unwrap_or(Method::RoundRobin), drains: true }
}

/// A snapshot without peers.
pub(super) fn empty(upstream: &Upstream) -> Snapshot {
    Snapshot {
        name: upstream.name.clone(),
        zone: upstream.zone.clone(),
        method: upstream.method,
        fixed: upstream.fixed(),
        revision: Revision(0),
        memory: None,
        pools: None,
        peers: Vec::new(),
        primary: Totals::default(),
        backup: None,
        zombies: Zombies::default(),
        faults: Faults::default(),
    }
}

/// One peer, from its row and from what the store knows of it. `clients` is the client of the peer before.
pub(super) fn peer(
    (copy, text): (&zone::Copy, &SharedText),
    row: &Row,
    known: &Known,
    reason: Option<&records::Reason>,
    clients: &mut Option<Text>,
    abilities: Abilities,
) -> Peer {
    let (admin, reason) = match known.told {
        Some((told, by_file)) if abilities.admin(told, row.down) == told => (
            told,
            reason
                .map(|reason| operator(reason, clients))
                .or((by_file && told != Admin::Up).then_some(Reason::Configuration)),
        ),
        // Another module wrote nginx's word, or the configuration of a static upstream did.
        Some(_) => (admin_of(row.down), None),
        None => (admin_of(row.down), (row.down != 0).then_some(Reason::Configuration)),
    };
    let name = text.part(&row.name);
    // An address in a directive such as `proxy_pass` has no text of its own.
    let server = if row.server.is_empty() { name.clone() } else { text.part(&row.server) };
    Peer {
        id: known.id.map(ServerId),
        slot: row.slot,
        server,
        name,
        terms: Terms { admin, params: row.params },
        effective_weight: row.effective_weight,
        current_weight: row.current_weight,
        active: row.conns,
        down: row.down,
        managed: row.managed,
        reason,
        failures: Failures {
            fails: row.fails,
            max_fails: row.params.max_fails,
            fail_timeout: row.params.fail_timeout,
            checked: row.checked,
            single: copy.single,
        },
        last_failure: (row.accessed != 0).then_some(UnixTime(row.accessed)),
    }
}

/// A reason as it is shown. Most servers have theirs from the same client as the one before.
fn operator(reason: &records::Reason, clients: &mut Option<Text>) -> Reason {
    let same = clients.take().filter(|client| client.as_bytes() == reason.client_bytes());
    let client = same.unwrap_or_else(|| reason.client().into());
    *clients = Some(client.clone());
    Reason::Operator { at: UnixTime(reason.at), client, user: reason.user(), note: reason.note() }
}

/// Asks the store about each row. The error inside is the number of reasons that room is needed for.
fn know(control: &Control, copy: &zone::Copy, room: usize) -> Result<Result<Knowledge, usize>, Stuck> {
    let mut known = vec![Known::default(); copy.rows.len()];
    let mut reasons = Vec::with_capacity(room);

    let locked = control.lock()?;
    let revision = locked.revision(control.record);
    death::may_come("looking");
    let needed = ask(control, &locked, copy, &mut known, &mut reasons);
    drop(locked);
    Ok(if needed > reasons.len() { Err(needed) } else { Ok(Knowledge { known, reasons, revision }) })
}

/// The same, with the lock in hand and within the room that there is. Returns how many reasons there are.
fn ask(
    control: &Control,
    locked: &Locked,
    copy: &zone::Copy,
    known: &mut [Known],
    reasons: &mut Vec<(usize, records::Reason)>,
) -> usize {
    let revision = locked.revision(control.record);
    let mut needed = 0;
    let mut finder = locked.finder(control.record);
    for (at, (row, known)) in copy.rows.iter().zip(known).enumerate() {
        let Some(server) = finder.find(row.slot.group, copy.bytes(&row.server), copy.bytes(&row.name)) else {
            continue;
        };
        *known = Known::of(&server, revision);
        if let Some(reason) = server.reason(revision) {
            needed += 1;
            if reasons.len() < reasons.capacity() {
                reasons.push((at, reason));
            }
        }
    }
    needed
}

/// Gives records to peers that nginx made since the records were last compared, when it resolved a name. True if it did.
///
/// Only processes of the newest configuration do so: others have other peers. Peers for which the store has no room are
/// shown without an id.
pub(super) fn adopt_new_peers(control: &Control, copy: &zone::Copy, limit: Duration) -> bool {
    let moved = |locked: &mut Locked| {
        control.is_newest(locked) && locked.membership(control.record) < copy.membership
    };
    if !control.store.lock_within(limit).is_ok_and(|mut locked| moved(&mut locked)) {
        return false;
    }
    let claims: Vec<Claim<'_>> = copy.rows.iter().map(|row| claim(copy, row)).collect();
    let mut claimed = Claimed::with_room(claims.len());
    let Ok(mut locked) = control.store.lock_within(limit) else { return false };
    if !moved(&mut locked) {
        return true;
    }
    let claimed = locked.claim(
        control.record,
        control.generation,
        copy.membership,
        &claims,
        &mut claimed,
        Wishes::Kept,
    );
    if claimed.is_ok() {
        // A peer that is back is what it was told to be before it left.
        let revision = locked.revision(control.record);
        apply_wishes(control, &locked, revision, 0);
    }
    claimed.is_ok()
}

/// A live peer as the store is asked for its record.
pub(super) fn claim<'a>(copy: &'a zone::Copy, row: &Row) -> Claim<'a> {
    Claim {
        group: row.slot.group,
        server: copy.bytes(&row.server),
        name: copy.bytes(&row.name),
        terms: Terms { admin: admin_of(row.down), params: row.params },
        managed: row.managed,
    }
}

/// The servers as the configuration has them, of an upstream whose peers cannot be read.
fn configured(upstream: &Upstream) -> Vec<Peer> {
    use crate::model::id::{Group, Slot};

    let mut next = [0_usize; 2];
    let mut slot = |backup: bool| {
        let [primary, backups] = &mut next;
        let (group, next) = if backup { (Group::Backup, backups) } else { (Group::Primary, primary) };
        let slot = Slot { group, index: *next };
        *next += 1;
        slot
    };
    let mut peers = Vec::new();
    for server in upstream.conf.configured() {
        let Configured { weight, max_conns, max_fails, fail_timeout, down, backup, .. } = server;
        let admin = if down { Admin::Down } else { Admin::Up };
        for name in server.names {
            peers.push(Peer {
                id: None,
                slot: slot(backup),
                server: if server.server.is_empty() { name.as_str() } else { &server.server }.into(),
                name: name.into(),
                terms: Terms { admin, params: Params { weight, max_conns, max_fails, fail_timeout } },
                effective_weight: i64::try_from(weight).unwrap_or(i64::MAX),
                current_weight: 0,
                active: 0,
                down: u64::from(down),
                managed: false,
                reason: down.then_some(Reason::Configuration),
                failures: Failures::default(),
                last_failure: None,
            });
        }
    }
    peers
}
