//! Changing the parameters of live peers. Everything here runs under the write locks of both lists: no allocation, no
//! logging, no calls out, a few dozen instructions a peer.

use std::ptr::NonNull;

use nginx_sys::{ngx_http_upstream_rr_peer_t, ngx_http_upstream_rr_peers_t, ngx_int_t, time_t};

use crate::model::id::Group;
use crate::model::server::Terms;
use crate::model::snapshot::Method;
use crate::model::state::Admin;
use crate::nginx::death;

use super::Current;
use super::backend::{Backend, NoSeat, caches_weights};
use super::lock::Lists;
use super::peers::{Zone, bytes};
use super::place::{Place, Spot};
use super::{Prepared, PreparedList};

/// nginx's `down` word for the parameter `down`: NGX_HTTP_UPSTREAM_FAILED.
const DOWN: usize = 1;

/// nginx's `down` word for the parameter `drain`, where the core has sticky sessions: NGX_HTTP_UPSTREAM_DRAINING.
const DRAINING: usize = 8;

/// What a peer is to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Setting {
    /// Its state and its parameters.
    pub terms: Terms,
    /// Whether its failures are forgotten; they are, too, when it comes up.
    pub revive: bool,
}

/// What nginx's `down` word says was asked of a peer.
pub fn admin_of(down: u64) -> Admin {
    match down as usize {
        0 => Admin::Up,
        down if down & DRAINING != 0 => Admin::Drain,
        _ => Admin::Down,
    }
}

/// What the balancers of the running nginx understand.
#[derive(Clone, Copy, Debug)]
pub struct Abilities {
    /// How the upstream chooses.
    pub method: Method,
    /// Whether the core knows draining peers, which still take the requests of their sessions.
    pub drains: bool,
}

impl Abilities {
    /// What was asked of a peer, if it was last told to be `told` and nginx's word is now `down`: when the word is no
    /// longer the one for `told`, somebody else wrote it, and it speaks for itself.
    pub fn admin(self, told: Admin, down: u64) -> Admin {
        if self.down(told) as u64 == down { told } else { admin_of(down) }
    }

    /// nginx's `down` word for a wish. Where the core knows no draining peers, one that drains is down.
    pub(super) fn down(self, admin: Admin) -> usize {
        match admin {
            Admin::Up => 0,
            Admin::Drain if self.drains => DRAINING,
            Admin::Down | Admin::Drain => DOWN,
        }
    }
}

/// What becomes of the peer at one place.
pub enum Fate {
    /// It gets other parameters, or another state.
    Set(Setting),
    /// It leaves.
    Leave,
    /// It leaves, and this one takes its place.
    Replace(Prepared),
}

/// A change of the lists: of peers that are there, each at most once, and servers that become the last of their list.
/// Many are found sooner in nginx's order.
#[derive(Default)]
pub struct Edits {
    /// What becomes of peers.
    pub at: Vec<(Spot, Fate)>,
    /// New servers.
    pub append: Vec<(Group, Prepared)>,
    /// Peers of the primaries and of the backups that are probably the last ones.
    pub last: [Option<Place>; 2],
    /// A list of backups, in case that there is none.
    pub backups: Option<PreparedList>,
    /// The places that were found for new servers, by address.
    pub(super) seats: Vec<NonNull<ngx_http_upstream_rr_peer_t>>,
    /// What finds new servers among those that left, in order, each with its place among the edits: in `at`, and behind
    /// it in `append`.
    pub(super) keys: Vec<(u64, usize)>,
}

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

/// What edits touched.
#[derive(Clone, Copy, Default)]
pub struct Touched {
    /// A weight.
    pub(super) weights: bool,
    /// The members of a list.
    pub(super) members: bool,
}

impl Zone {
    /// Makes the edits, if the lists are still those of `membership`. Returns the count of changes after them; none, and
    /// nothing is changed, if others changed the lists. A spot without a peer is passed over.
    ///
    /// # Safety
    ///
    /// All places in the edits were those of linked peers of this zone when the count of changes was `membership`.
    pub unsafe fn apply(
        &self,
        mut lists: Lists,
        abilities: Abilities,
        membership: u64,
        edits: &mut Edits,
    ) -> Option<u64> {
        if self.membership() != membership {
            return None;
        }
        // SAFETY: `lists` holds the write locks, under which the edits were seated; the places are those of linked peers,
        // since every change of the lists raises the count under these locks.
        unsafe {
            let touched = Current::edit(self, &mut lists, abilities, edits);
            death::may_come("edited");
            self.finish(&lists, abilities, touched);
        }
        Some(self.membership())
    }

    /// Sets each peer for which `wanted`, given its list, its server text and its address, has a setting. `wanted` must
    /// neither allocate nor panic.
    pub fn apply_by_name(
        &self,
        lists: Lists,
        abilities: Abilities,
        mut wanted: impl FnMut(Group, &[u8], &[u8]) -> Option<Setting>,
    ) {
        let mut touched = Touched::default();
        for (group, list) in lists.iter() {
            // SAFETY: `lists` holds the write locks for as long as the loop runs, so that the peers and their texts stay.
            unsafe {
                for peer in self.servers(list) {
                    let (server, name) = (bytes(&(*peer.as_ptr()).server), bytes(&(*peer.as_ptr()).name));
                    if let Some(setting) = wanted(group, server, name) {
                        touched.weights |= set(list, peer, abilities, &setting);
                    }
                }
            }
        }
        // SAFETY: likewise.
        unsafe { self.finish(&lists, abilities, touched) };
    }

    /// Tells the workers what they have to compute anew.
    ///
    /// # Safety
    ///
    /// The write locks of both lists are held.
    unsafe fn finish(&self, lists: &Lists, abilities: Abilities, touched: Touched) {
        // SAFETY: see above.
        unsafe {
            if touched.members {
                Current::settle(self, lists);
            }
            if touched.members || (touched.weights && caches_weights(abilities.method)) {
                Current::moved(self);
            }
        }
    }

    /// Finds a place for each new server.
    ///
    /// # Errors
    ///
    /// Some have none; the lists are as they were.
    pub fn seat(&self, lists: &Lists, edits: &mut Edits) -> Result<(), NoSeat> {
        // SAFETY: `lists` are the locks of this zone, and the caller hands them on to `apply`.
        unsafe { Current::seat(self, lists, edits) }
    }

    /// Whether there are servers that left and are not freed yet.
    pub fn has_remains(&self) -> bool {
        Current::has_remains(self)
    }

    /// Frees the servers that left and that no request uses any more. The caller holds the store's lock, so that only one
    /// process does so.
    pub fn reap(&self) {
        Current::reap(self);
    }
}

/// Notes whether any weight of a list differs from 1, as nginx does.
///
/// # Safety
///
/// The write lock of the list is held.
pub(super) unsafe fn set_weighted(list: *mut ngx_http_upstream_rr_peers_t) {
    // SAFETY: see above.
    unsafe {
        let weighted = (*list).total_weight != (*list).number;
        ngx_http_upstream_rr_peers_t::set_weighted_raw(list, u32::from(weighted));
    }
}

/// Sets one peer, and the sums of its list. True if its weight changed.
///
/// # Safety
///
/// The write locks of both lists are held, and `peer` is linked in `list`.
pub(super) unsafe fn set(
    list: NonNull<ngx_http_upstream_rr_peers_t>,
    peer: NonNull<ngx_http_upstream_rr_peer_t>,
    abilities: Abilities,
    setting: &Setting,
) -> bool {
    let (list, peer) = (list.as_ptr(), peer.as_ptr());
    let down = abilities.down(setting.terms.admin);
    let weight = ngx_int_t::try_from(setting.terms.params.weight).unwrap_or(ngx_int_t::MAX);
    // SAFETY: under the write lock nobody else reads or writes these words. The locks beside them are words that other
    // workers spin on, which is why no reference to the whole structure is made.
    unsafe {
        let mut revive = setting.revive;
        if down != (*peer).down {
            (*list).tries = (*list)
                .tries
                .wrapping_add(usize::from(down == 0))
                .wrapping_sub(usize::from((*peer).down == 0));
            (*peer).down = down;
            revive |= down == 0;
        }

        let weight_changed = weight != (*peer).weight;
        if weight_changed {
            (*list).total_weight =
                (*list).total_weight.wrapping_add(weight as usize).wrapping_sub((*peer).weight as usize);
            (*peer).weight = weight;
            (*peer).effective_weight = weight;
            // What is left of a large weight would starve the peer, or send it a burst.
            (*peer).current_weight = 0;
            set_weighted(list);
        }

        (*peer).max_conns = setting.terms.params.max_conns as usize;
        (*peer).max_fails = setting.terms.params.max_fails as usize;
        (*peer).fail_timeout = time_t::try_from(setting.terms.params.fail_timeout).unwrap_or(time_t::MAX);

        if revive {
            (*peer).fails = 0;
            (*peer).effective_weight = (*peer).weight;
        }
        weight_changed
    }
}
