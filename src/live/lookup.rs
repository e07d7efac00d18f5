//! Look-ups of single servers, which cost the same among ten and among ten thousand: the store finds the record, the
//! record knows the peer, and only that is copied.

use crate::model::address::Address;
use crate::model::id::{Revision, ServerId, Slot};
use crate::model::snapshot::{Method, Peer, Snapshot};
use crate::model::text::SharedText;
use crate::nginx::death;
use crate::ops::{Guard, Lookup, OpError, Selector};
use crate::store::find::Found;
use crate::store::records;
use crate::store::{Locked, PATIENCE};
use crate::zone::sums::Sums;
use crate::zone::{Copy, Lists, Place};

use super::catch_up::catch_up;
use super::follow::follow;
use super::known::Known;
use super::upstream::{Control, Upstream};
use super::view::{View, empty, peer};

/// Servers that a look-up makes room for before it takes the locks.
const ROWS: usize = 4;

/// Bytes of text that it makes room for, for each of them.
const TEXT_PER_ROW: usize = 96;

/// Attempts to find peers that the store knows all of, while nginx resolves names.
const ATTEMPTS: usize = 2;

/// Look-ups in a changeable upstream, by a process of the newest configuration.
pub struct Index<'a> {
    /// The upstream.
    upstream: &'a Upstream,
    /// What it is controlled through.
    control: &'a Control,
    /// Its number of changes when the look-ups began.
    revision: Revision,
    /// nginx's count of changes to the lists then.
    membership: u64,
    /// What nginx counted then.
    sums: Sums,
}

/// Words that choose servers, made ready before the locks are taken.
enum Wanted<'w> {
    /// Identity.
    Id(u64),
    /// Position among the primaries.
    Position(usize),
    /// A text, and the address that it stands for, if it does, as nginx writes it.
    Called(&'w str, Option<String>),
}

/// Servers that were found, in room that was made before the locks were taken.
struct Room {
    /// Their peers, of which only some columns are filled in.
    copy: Copy,
    /// What the store knows of each.
    known: Vec<(Known, Option<records::Reason>)>,
    /// How many there are; more than fit if the room was too small.
    needed: usize,
    /// Bytes of text that they need.
    text: usize,
}

impl Room {
    /// Room for so many.
    fn new(rows: usize, text: usize) -> Self {
        let copy = Copy { rows: Vec::with_capacity(rows), text: Vec::with_capacity(text), ..Copy::default() };
        Self { copy, known: Vec::with_capacity(rows), needed: 0, text: 0 }
    }

    /// Whether all were put in.
    fn is_whole(&self) -> bool {
        self.copy.rows.len() == self.needed
    }
}

/// Lets the store know the peers of all servers, which takes a walk if nginx changed the lists since. False in a process
/// of an older configuration, whose peers are others.
pub(super) fn know_peers(control: &Control, locked: &mut Locked, lists: &Lists) -> bool {
    if !control.is_newest(locked) {
        return false;
    }
    // It stands still while the locks are held.
    let membership = control.zone.membership();
    if !locked.knows_peers(control.record, membership) {
        let peers = lists.each();
        let peers = peers.map(|(group, server, name, place)| (group, server, name, place.as_ptr()));
        locked.note_peers(control.record, membership, peers);
    }
    true
}

/// Look-ups to plan a change with.
///
/// # Errors
///
/// A lock is stuck, or there is no memory.
pub fn look_up<'a>(upstream: &'a Upstream, control: &'a Control) -> Result<Box<dyn Lookup + 'a>, OpError> {
    if let Some(index) = Index::take(upstream, control)? {
        return Ok(Box::new(index));
    }
    Ok(Box::new(View::take(upstream, control)?))
}

/// An upstream with no peers but those of these servers, in nginx's order.
///
/// # Errors
///
/// There is no memory.
pub fn only(upstream: &Upstream, control: &Control, ids: &[ServerId]) -> Result<Snapshot, OpError> {
    let found = Index::take(upstream, control)
        .and_then(|index| index.map(|index| Ok((index.servers(ids)?, index.revision))).transpose());
    if let Ok(Some((Some(peers), revision))) = found {
        return Ok(Snapshot { revision, peers, ..empty(upstream) });
    }
    let mut snapshot = View::snapshot(upstream)?;
    snapshot.peers.retain(|peer| peer.id.is_some_and(|id| ids.contains(&id)));
    Ok(snapshot)
}

impl<'a> Index<'a> {
    /// Look-ups as of now; none in a process of an older configuration, or if the store has no room for what nginx
    /// resolved: those need the whole of the lists.
    fn take(upstream: &'a Upstream, control: &'a Control) -> Result<Option<Self>, OpError> {
        for _ in 0..ATTEMPTS {
            catch_up(control, PATIENCE);
            // A process that died has left these locked: that is found out without the store's lock in hand.
            drop(control.zone.read().ok_or(OpError::Stuck)?);
            let mut locked = control.lock()?;
            let lists = control.zone.read().ok_or(OpError::Stuck)?;
            let membership = control.zone.membership();
            if !know_peers(control, &mut locked, &lists) {
                break;
            }
            let known = locked.membership(control.record);
            let revision = Revision(locked.revision(control.record));
            let sums = lists.sums();
            death::may_come("reading");
            // Else a change is in the store that the lists do not show: it may do so before a plan is carried out.
            let is_shown = control.applied() == revision.0;
            drop((lists, locked));
            if !is_shown {
                continue;
            }
            if known >= membership {
                return Ok(Some(Self { upstream, control, revision, membership, sums }));
            }
            follow(control, PATIENCE);
        }
        Ok(None)
    }
}

impl Index<'_> {
    /// The servers with these ids, in nginx's order; none at all if the configuration is another one by now.
    fn servers(&self, ids: &[ServerId]) -> Result<Option<Vec<Peer>>, OpError> {
        let mut peers = Vec::with_capacity(ids.len());
        for id in ids {
            let Some(found) = self.read(&Wanted::Id(id.0))? else { return Ok(None) };
            peers.extend(found);
        }
        self.place(&mut peers);
        Ok(Some(peers))
    }

    /// What is chosen by the words; none at all if the configuration is another one by now.
    fn read(&self, wanted: &Wanted<'_>) -> Result<Option<Vec<Peer>>, OpError> {
        let (mut rows, mut text) = (ROWS, ROWS * TEXT_PER_ROW);
        loop {
            let mut room = Room::new(rows, text);
            if !self.read_into(wanted, &mut room)? {
                return Ok(None);
            }
            if room.is_whole() {
                let text = SharedText::new(std::mem::take(&mut room.copy.text));
                let Room { copy, known, .. } = &room;
                let abilities = self.control.abilities;
                let peers = copy.rows.iter().zip(known);
                let peers = peers.map(|(row, (known, reason))| {
                    peer((copy, &text), row, known, reason.as_ref(), &mut None, abilities)
                });
                return Ok(Some(peers.collect()));
            }
            (rows, text) = (room.needed.saturating_add(ROWS), room.text.saturating_add(TEXT_PER_ROW));
        }
    }

    /// The same, within the room that there is. False if the configuration is another one by now.
    fn read_into(&self, wanted: &Wanted<'_>, room: &mut Room) -> Result<bool, OpError> {
        let control = self.control;
        let mut locked = control.lock()?;
        let lists = control.zone.read().ok_or(OpError::Stuck)?;
        if !know_peers(control, &mut locked, &lists) {
            return Ok(false);
        }
        lists.copy_sums(&mut room.copy);
        match wanted {
            Wanted::Id(id) => {
                if let Some(server) = locked.server(control.record, *id) {
                    self.put(&locked, &lists, &locked.found(server), usize::MAX, room);
                }
            }
            Wanted::Position(position) => {
                let found = lists.nth(*position);
                let server =
                    found.and_then(|(place, name)| locked.server_of(control.record, name, place.as_ptr()));
                if let Some(server) = server {
                    self.put(&locked, &lists, &server, *position, room);
                }
            }
            Wanted::Called(text, address) => {
                let address = address.as_ref().map(String::as_bytes);
                locked.called(control.record, text.as_bytes(), address, |server| {
                    self.put(&locked, &lists, &server, usize::MAX, room);
                });
            }
        }
        Ok(true)
    }

    /// Puts a server that has a peer into the room, if it fits.
    fn put(&self, locked: &Locked, lists: &Lists, found: &Found<'_>, index: usize, room: &mut Room) {
        let Some(place) = Place::from_ptr(locked.peer(found.record())) else { return };
        room.needed += 1;
        room.text = room.text.saturating_add(found.server().len()).saturating_add(found.name().len());
        let slot = Slot { group: found.group(), index };
        if room.known.len() == room.known.capacity() {
            return;
        }
        // SAFETY: the lists are those of this zone, and the store knows its peers at the present count of changes.
        let fits = unsafe { lists.copy_one(place, slot, &mut room.copy) };
        if fits {
            let revision = locked.revision(self.control.record);
            room.known.push((Known::of(found, revision), found.reason(revision)));
        }
    }
}

impl Lookup for Index<'_> {
    fn revision(&self) -> Revision {
        self.revision
    }

    fn membership(&self) -> u64 {
        self.membership
    }

    fn method(&self) -> Method {
        self.control.abilities.method
    }

    fn has_backups(&self) -> bool {
        self.upstream.conf.has_backups()
    }

    fn guard(&self) -> Option<Guard> {
        self.upstream.guard
    }

    fn usable(&self) -> (usize, usize) {
        (self.sums.usable as usize, self.sums.number as usize)
    }

    fn total_weight(&self) -> u64 {
        self.sums.weight
    }

    fn select(&self, selector: &Selector) -> Result<Vec<Peer>, OpError> {
        let found = match selector {
            Selector::Id(id) => self.read(&Wanted::Id(id.0))?,
            Selector::Position(position) => self.read(&Wanted::Position(*position))?,
            Selector::Server(text) => {
                let address = Address::parse(text).ok().map(|address| address.to_string());
                self.read(&Wanted::Called(text, address))?
            }
            // It has to be compared with each server.
            Selector::Host(_) => None,
        };
        let Some(mut peers) = found else {
            let view = View::take(self.upstream, self.control)?;
            return view.select(selector);
        };
        self.place(&mut peers);
        Ok(peers)
    }

    fn place(&self, peers: &mut [Peer]) {
        if peers.len() < 2 {
            return;
        }
        let control = self.control;
        let mut places = Vec::with_capacity(peers.len());
        let Ok(mut locked) = control.lock() else { return };
        let Some(lists) = control.zone.read() else { return };
        if !know_peers(control, &mut locked, &lists) {
            return;
        }
        for (at, peer) in peers.iter().enumerate() {
            let server = peer.id.and_then(|id| locked.server(control.record, id.0));
            places.extend(server.map(|server| (locked.peer(server), at)).filter(|(peer, _)| !peer.is_null()));
        }
        places.sort_unstable();
        let (mut primaries, mut backups) = (0.., 0..);
        for (group, _, _, place) in lists.each() {
            let index = if group.is_backup() { backups.next() } else { primaries.next() };
            let found = places.binary_search_by_key(&place.as_ptr(), |(peer, _)| *peer).ok();
            let at = found.and_then(|found| places.get(found)).map(|(_, at)| *at);
            if let Some((peer, index)) = at.and_then(|at| peers.get_mut(at)).zip(index) {
                peer.slot = Slot { group, index };
            }
        }
        drop((lists, locked));
        peers.sort_by_key(|peer| peer.slot);
    }
}
