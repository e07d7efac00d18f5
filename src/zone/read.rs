//! Reading live peers: everything is copied out under the read locks, and used after them.

use std::ptr::NonNull;

use nginx_sys::{sockaddr, socklen_t};

use crate::model::id::{Group, Slot};
use crate::model::snapshot::Totals;

use super::backend::Backend;
use super::copy::{Copy, row};
use super::current::Current;
use super::handle::Zone;
use super::lock::Lists;
use super::nginx_peers::{RawPeer, RawPeers};
use super::peers::{Peers, bytes};
use super::place::{Place, Sums};

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

    /// The servers of a list whose lock is held for as long as what is returned is used.
    pub(super) fn servers(
        &self,
        list: NonNull<RawPeers>,
    ) -> impl Iterator<Item = NonNull<RawPeer>> + use<'_> {
        // SAFETY: see above.
        unsafe { Peers::of(list) }.filter(|peer| !Current::is_blank(self, *peer))
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
        // SAFETY: the lists are mapped; a torn guess costs a second try and nothing else.
        let rows = unsafe {
            let backup = NonNull::new((&raw const (*self.primary.as_ptr()).next).read_volatile());
            let lists = [(Group::Primary, Some(self.primary)), (Group::Backup, backup)].into_iter();
            let sums = lists.filter_map(|(group, list)| list.map(|list| Current::sums(self, group, list)));
            sums.fold(SLACK, |rows, sums| rows.saturating_add(sums.number as usize))
        };
        (rows, rows.saturating_mul(TEXT_PER_PEER))
    }

    /// Copies within the room that `copy` has, since nothing may be allocated under the locks; else says how much room
    /// is needed.
    fn copy_into(&self, copy: &mut Copy) -> Result<(), Option<(usize, usize)>> {
        let lists = self.read().ok_or(None)?;
        let (mut rows, mut text) = (0_usize, 0_usize);
        let mut fits = true;
        // SAFETY: the read locks are held by `lists`. nginx writes the counters of a peer under the read lock and the
        // peer's own lock, so a counter may be one request old; each is a word.
        unsafe {
            for (group, list) in lists.iter() {
                let sums = Current::sums(self, group, list);
                let mut totals = Totals {
                    number: sums.number,
                    total_weight: sums.weight,
                    tries: sums.usable,
                    ..Totals::default()
                };
                for (index, place) in self.servers(list).enumerate() {
                    let peer = &*place.as_ptr();
                    rows += 1;
                    text = text.saturating_add(peer.name.len).saturating_add(peer.server.len);
                    fits = fits && rows <= copy.rows.capacity() && text <= copy.text.capacity();
                    totals.counted += 1;
                    totals.counted_weight = totals.counted_weight.wrapping_add(peer.weight as u64);
                    totals.counted_usable += u64::from(peer.down == 0);
                    totals.conns = totals.conns.wrapping_add(peer.conns as u64);
                    totals.refs = totals.refs.wrapping_add(Current::refs(peer));
                    if fits {
                        let slot = Slot { group, index };
                        let row = row(place, slot, Current::managed(peer), &mut copy.text);
                        copy.rows.push(row);
                    }
                }
                match group {
                    Group::Primary => copy.primary = totals,
                    Group::Backup => copy.backup = Some(totals),
                }
            }
            copy.single = (*lists.primary.as_ptr()).single() != 0;
            copy.zombies = Current::zombies(self, &lists);
            copy.faults = Current::faults(self, &lists);
        }
        copy.membership = self.membership();
        if fits { Ok(()) } else { Err(Some((rows, text))) }
    }

    /// How many of the peers that are not down have an address that `wanted` takes; 0 if the locks are stuck. `wanted` must
    /// neither allocate nor panic.
    pub fn count_usable(&self, wanted: impl Fn(*const sockaddr, socklen_t) -> bool) -> usize {
        let Some(lists) = self.read() else { return 0 };
        // SAFETY: the read locks are held, so that linked peers and their addresses stay.
        let peers = lists.iter().flat_map(|(_, list)| unsafe { Peers::of(list) });
        peers
            // SAFETY: likewise.
            .filter(|peer| unsafe {
                let peer = peer.as_ptr();
                (*peer).down == 0 && wanted((*peer).sockaddr, (*peer).socklen)
            })
            .count()
    }

    /// Each peer: its list, its text, its address, and its place. Primaries first, in nginx's order.
    pub fn each<'a>(
        &'a self,
        lists: &'a Lists,
    ) -> impl Iterator<Item = (Group, &'a [u8], &'a [u8], Place)> + use<'a> {
        lists.iter().flat_map(move |(group, list)| {
            self.servers(list).map(move |peer| {
                // SAFETY: the locks are held for 'a, so that linked peers and their texts stay.
                let (server, name) =
                    unsafe { (bytes(&(*peer.as_ptr()).server), bytes(&(*peer.as_ptr()).name)) };
                (group, server, name, Place(peer))
            })
        })
    }

    /// The primary at a position, from 0, and its address.
    pub fn nth<'a>(&'a self, lists: &'a Lists, position: usize) -> Option<(Place, &'a [u8])> {
        self.servers(lists.primary).nth(position).map(|peer| {
            // SAFETY: likewise.
            (Place(peer), unsafe { bytes(&(*peer.as_ptr()).name) })
        })
    }

    /// Copies one peer out, within the room that `copy` has; false if it has none. `slot` is where it is said to stand.
    ///
    /// # Safety
    ///
    /// `lists` are the locks of this zone, and the place was found at the present count of changes.
    pub unsafe fn copy_one(&self, _lists: &Lists, place: Place, slot: Slot, copy: &mut Copy) -> bool {
        // SAFETY: see above: the peer is linked, and stays so while the locks are held.
        unsafe {
            let peer = place.0.as_ref();
            let text = peer.name.len.saturating_add(peer.server.len);
            let fits = copy.rows.len() < copy.rows.capacity()
                && copy.text.capacity().saturating_sub(copy.text.len()) >= text;
            if fits {
                let row = row(place.0, slot, Current::managed(peer), &mut copy.text);
                copy.rows.push(row);
            }
            fits
        }
    }

    /// Notes what the lists say of the whole of themselves.
    pub fn copy_sums(&self, lists: &Lists, copy: &mut Copy) {
        // SAFETY: the locks are held.
        copy.single = unsafe { (*lists.primary.as_ptr()).single() } != 0;
        copy.membership = self.membership();
    }

    /// What nginx counts of both lists.
    pub fn sums(&self, lists: &Lists) -> Sums {
        lists.iter().fold(Sums::default(), |sums, (group, list)| {
            // SAFETY: the locks are held.
            let of_list = unsafe { Current::sums(self, group, list) };
            Sums {
                number: sums.number.wrapping_add(of_list.number),
                usable: sums.usable.wrapping_add(of_list.usable),
                weight: sums.weight.wrapping_add(of_list.weight),
            }
        })
    }
}
