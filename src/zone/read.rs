//! Reading live peers: everything is copied out under the read locks, and used after them.

use crate::model::id::{Group, Slot};
use crate::model::snapshot::Totals;

use super::backend::Backend;
use super::copy::{Copy, row};
use super::current::Current;
use super::handle::Zone;
use super::lock::Lists;
use super::peers::{List, Peer};
use super::place::Place;
use super::sums::Sums;

/// Rows that a copy makes room for beyond those it expects, so that a list that grows meanwhile rarely needs a second
/// try.
const SLACK: usize = 8;

/// Bytes of name and server text that a copy expects of a peer.
const TEXT_PER_PEER: usize = 64;

impl Zone {
    /// How often the lists changed.
    pub fn membership(&self) -> u64 {
        Current::membership(self)
    }

    /// Room for a copy, which is probably enough.
    pub fn room(&self) -> Copy {
        let (rows, text) = self.expected();
        Copy::with_room(rows, text)
    }

    /// Copies all peers out within the room that there is; false if it is too little. None if their locks are stuck.
    pub fn copy_within(&self, copy: &mut Copy) -> Option<bool> {
        match self.copy_into(copy) {
            Ok(()) => Some(true),
            Err(Some(_)) => Some(false),
            Err(None) => None,
        }
    }

    /// Copies all peers out, from one moment. None if their locks are stuck, see [`Zone::write`].
    pub fn copy(&self) -> Option<Copy> {
        let (mut rows, mut text) = self.expected();
        loop {
            let mut copy = Copy::with_room(rows, text);
            match self.copy_into(&mut copy) {
                Ok(()) => return Some(copy),
                Err(None) => return None,
                Err(Some((needed_rows, needed_text))) => {
                    rows = needed_rows.saturating_add(SLACK);
                    text = needed_text.saturating_add(SLACK * TEXT_PER_PEER);
                }
            }
        }
    }

    /// Rows and bytes of text that a copy probably needs. The numbers are read without locks: they are a guess.
    pub fn expected(&self) -> (usize, usize) {
        let backups = self.primary().backups();
        let lists = [(Group::Primary, Some(self.primary())), (Group::Backup, backups)].into_iter();
        let sums = lists.filter_map(|(group, list)| list.map(|list| Current::sums(self, group, list)));
        let rows = sums.fold(SLACK, |rows, sums| rows.saturating_add(sums.number as usize));
        (rows, rows.saturating_mul(TEXT_PER_PEER))
    }

    /// Copies within the room that `copy` has, since nothing may be allocated under the locks; else says how much room
    /// is needed.
    fn copy_into(&self, copy: &mut Copy) -> Result<(), Option<(usize, usize)>> {
        let lists = self.read().ok_or(None)?;
        let (mut rows, mut text) = (0_usize, 0_usize);
        let mut fits = true;
        for (group, list) in lists.iter() {
            let mut totals = totals(Current::sums(self, group, list));
            for (index, peer) in lists.servers(list).enumerate() {
                rows += 1;
                text = text.saturating_add(peer.name().len()).saturating_add(peer.server().len());
                fits = fits && rows <= copy.rows.capacity() && text <= copy.text.capacity();
                totals.counted += 1;
                totals.counted_weight = totals.counted_weight.wrapping_add(peer.weight() as u64);
                totals.counted_usable += u64::from(peer.is_up());
                totals.conns = totals.conns.wrapping_add(peer.conns() as u64);
                totals.refs = totals.refs.wrapping_add(Current::refs(peer));
                if fits {
                    let row = row(peer, Slot { group, index }, Current::managed(peer), &mut copy.text);
                    copy.rows.push(row);
                }
            }
            match group {
                Group::Primary => copy.primary = totals,
                Group::Backup => copy.backup = Some(totals),
            }
        }
        copy.zombies = Current::zombies(&lists);
        copy.faults = Current::faults(&lists);
        lists.copy_sums(copy);
        if fits { Ok(()) } else { Err(Some((rows, text))) }
    }

    /// How many of the peers that are not down have an address that `wanted` takes; 0 if the locks are stuck. `wanted` must
    /// neither allocate nor panic.
    pub fn count_usable(&self, wanted: impl Fn(&[u8]) -> bool) -> usize {
        let Some(lists) = self.read() else { return 0 };
        let peers = lists.iter().flat_map(|(_, list)| lists.peers(list));
        peers.filter(|peer| peer.is_up() && wanted(peer.address())).count()
    }
}

/// What a list says of itself.
fn totals(sums: Sums) -> Totals {
    Totals { number: sums.number, total_weight: sums.weight, tries: sums.usable, ..Totals::default() }
}

impl Lists {
    /// The servers of a list, in its order.
    pub(super) fn servers<'a>(&'a self, list: List<'a>) -> impl Iterator<Item = Peer<'a>> {
        self.peers(list).filter(|peer| !Current::is_blank(self.zone(), *peer))
    }

    /// Each peer: its list, its text, its address, and its place. Primaries first, in nginx's order.
    pub fn each(&self) -> impl Iterator<Item = (Group, &[u8], &[u8], Place)> {
        self.iter().flat_map(|(group, list)| {
            self.servers(list).map(move |peer| (group, peer.server(), peer.name(), peer.place()))
        })
    }

    /// The primary at a position, from 0, and its address.
    pub fn nth(&self, position: usize) -> Option<(Place, &[u8])> {
        self.servers(self.primary()).nth(position).map(|peer| (peer.place(), peer.name()))
    }

    /// Copies one peer out, within the room that `copy` has; false if it has none. `slot` is where it is said to stand.
    ///
    /// # Safety
    ///
    /// The place was found among these lists at the present count of changes.
    pub unsafe fn copy_one(&self, place: Place, slot: Slot, copy: &mut Copy) -> bool {
        // SAFETY: see above: the peer is linked, and stays so while the locks are held.
        let peer = unsafe { Peer::new(place.0) };
        let text = peer.name().len().saturating_add(peer.server().len());
        let fits = copy.rows.len() < copy.rows.capacity()
            && copy.text.capacity().saturating_sub(copy.text.len()) >= text;
        if fits {
            let row = row(peer, slot, Current::managed(peer), &mut copy.text);
            copy.rows.push(row);
        }
        fits
    }

    /// Notes what the lists say of the whole of themselves.
    pub fn copy_sums(&self, copy: &mut Copy) {
        copy.single = self.primary().is_single();
        copy.membership = self.zone().membership();
    }

    /// What nginx counts of both lists.
    pub fn sums(&self) -> Sums {
        self.iter().fold(Sums::default(), |sums, (group, list)| {
            let of_list = Current::sums(self.zone(), group, list);
            Sums {
                number: sums.number.wrapping_add(of_list.number),
                usable: sums.usable.wrapping_add(of_list.usable),
                weight: sums.weight.wrapping_add(of_list.weight),
            }
        })
    }
}
