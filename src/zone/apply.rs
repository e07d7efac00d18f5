//! Changing live peers. Everything here runs under the write locks of both lists: no allocation, no logging, no calls
//! out, a few dozen instructions a peer.

use crate::model::id::Group;
use crate::model::server::Server;
use crate::nginx::death;

use super::backend::{Backend, NoSeat, caches_weights};
use super::current::{Current, Edits, Fate, Prepared, PreparedList};
use super::edits::Touched;
use super::handle::Zone;
use super::lock::Writing;
use super::place::Place;
use super::prepared::Full;
use super::setting::{Abilities, Setting, set};

impl Edits {
    /// Makes room for what is noted under the locks, where nothing may be allocated, and notes what is to be found there.
    pub fn make_room(&mut self) {
        self.seats.reserve(self.at.len() + self.append.len());
        let replacing = self.at.iter().map(|(_, fate)| match fate {
            Fate::Replace(prepared) => Some(prepared),
            Fate::Set(_) | Fate::Leave => None,
        });
        let new = replacing.chain(self.append.iter().map(|(_, prepared)| Some(prepared)));
        let keys = new.enumerate().filter_map(|(at, prepared)| Some((Current::key(prepared?)?, at)));
        self.keys.clear();
        self.keys.extend(keys);
        self.keys.sort_unstable();
    }

    /// The peers of the servers that are new or have another address, in the order of the edits; none for those that
    /// have no place yet.
    pub fn arriving(&self) -> impl Iterator<Item = Option<Place>> {
        let replacing = self.at.iter().filter_map(|(_, fate)| match fate {
            Fate::Replace(prepared) => Some(prepared),
            Fate::Set(_) | Fate::Leave => None,
        });
        replacing.chain(self.append.iter().map(|(_, prepared)| prepared)).map(Current::place)
    }
}

impl Writing {
    /// Finds a place for each new server, if the lists are still those of `membership`; else none, and [`Self::apply`] will
    /// change nothing.
    ///
    /// # Safety
    ///
    /// All places in the edits were those of linked peers of this zone when the count of changes was `membership`.
    ///
    /// # Errors
    ///
    /// Some have none; the lists are as they were.
    pub unsafe fn seat(&self, membership: u64, edits: &mut Edits) -> Result<(), NoSeat> {
        if self.zone().membership() != membership {
            return Ok(());
        }
        // SAFETY: every change of the lists raises the count under these locks.
        unsafe { Current::seat(self, edits) }
    }

    /// Makes the edits, which were seated, if the lists are still those of `membership`. Returns the count of changes after
    /// them; none, and nothing is changed, if others changed the lists. A spot without a peer is passed over.
    ///
    /// # Safety
    ///
    /// All places in the edits were those of linked peers of this zone when the count of changes was `membership`. What was
    /// seated was seated under these locks.
    pub unsafe fn apply(mut self, abilities: Abilities, membership: u64, edits: &mut Edits) -> Option<u64> {
        if self.zone().membership() != membership {
            return None;
        }
        // SAFETY: every change of the lists raises the count under these locks.
        let touched = unsafe { Current::edit(&mut self, abilities, edits) };
        death::may_come("edited");
        self.finish(abilities, touched);
        Some(self.zone().membership())
    }

    /// Sets each peer for which `wanted`, given its list, its server text and its address, has a setting. `wanted` must
    /// neither allocate nor panic.
    pub fn apply_by_name(
        self,
        abilities: Abilities,
        mut wanted: impl FnMut(Group, &[u8], &[u8]) -> Option<Setting>,
    ) {
        let mut touched = Touched::default();
        for (group, list) in self.iter_mut() {
            for peer in self.peers_mut(list).filter(|peer| !Current::is_blank(self.zone(), **peer)) {
                if let Some(setting) = wanted(group, peer.server(), peer.name()) {
                    touched.weights |= set(list, peer, abilities, &setting);
                }
            }
        }
        self.finish(abilities, touched);
    }

    /// Tells the workers what they have to compute anew.
    fn finish(&self, abilities: Abilities, touched: Touched) {
        if touched.members {
            Current::settle(self);
        }
        if touched.members || (touched.weights && caches_weights(abilities.method)) {
            Current::moved(self);
        }
    }
}

impl Zone {
    /// Whether there are servers that left and are not freed yet.
    pub fn has_remains(&self) -> bool {
        Current::has_remains(self)
    }

    /// Frees the servers that left and that no request uses any more. The caller holds the store's lock, so that only one
    /// process does so.
    pub fn reap(&self) {
        Current::reap(self);
    }

    /// Makes a server ready to be linked.
    ///
    /// # Errors
    ///
    /// The zone is full; nothing of it stays taken.
    pub fn prepare(&self, new: &Server, abilities: Abilities) -> Result<Prepared, Full> {
        Current::prepare(self, new, abilities)
    }

    /// Makes a list of backups, unless there is one.
    ///
    /// # Errors
    ///
    /// The zone is full.
    pub fn prepare_backups(&self) -> Result<Option<PreparedList>, Full> {
        Current::prepare_backups(self)
    }
}
