//! Changing the parameters of live peers. Everything here runs under the write locks of both lists: no allocation, no
//! logging, no calls out, a few dozen instructions a peer.

use std::ptr::NonNull;

use nginx_sys::{ngx_http_upstream_rr_peer_t, ngx_http_upstream_rr_peers_t, ngx_int_t, time_t};

use crate::model::id::Slot;
use crate::model::params::Params;
use crate::model::snapshot::Method;
use crate::model::state::Admin;

use super::Current;
use super::backend::Backend;
use super::peers::{Peers, Zone, bytes};

/// nginx's `down` word for the parameter `down`: NGX_HTTP_UPSTREAM_FAILED.
const DOWN: usize = 1;

/// nginx's `down` word for the parameter `drain`, where the core has sticky sessions: NGX_HTTP_UPSTREAM_DRAINING.
const DRAINING: usize = 8;

/// What a peer is to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Setting {
    /// Up, down or draining.
    pub admin: Admin,
    /// weight, max_conns, max_fails, fail_timeout.
    pub params: Params,
    /// Whether its failures are forgotten.
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
    fn down(self, admin: Admin) -> usize {
        match admin {
            Admin::Up => 0,
            Admin::Drain if self.drains => DRAINING,
            Admin::Down | Admin::Drain => DOWN,
        }
    }
}

impl Zone {
    /// Sets the peers at the given places, in nginx's order. False, and nothing is changed, if the lists are no longer
    /// those of `membership`.
    pub fn apply(&self, abilities: Abilities, membership: u64, settings: &[(Slot, Setting)]) -> bool {
        let lists = self.write();
        if self.membership() != membership {
            return false;
        }
        let mut weights_changed = false;
        for (group, list) in lists.iter() {
            let mut wanted = settings.iter().filter(|(slot, _)| slot.group == group).peekable();
            // SAFETY: `lists` holds the write locks for as long as the loop runs.
            for (index, peer) in unsafe { Peers::of(list) }.enumerate() {
                let Some((_, setting)) = wanted.next_if(|(slot, _)| slot.index == index) else {
                    if wanted.peek().is_none() {
                        break;
                    }
                    continue;
                };
                // SAFETY: likewise.
                weights_changed |= unsafe { set(list, peer, abilities, setting) };
            }
        }
        if weights_changed {
            // SAFETY: likewise.
            unsafe { Current::weights_changed(lists.primary.as_ptr(), abilities.method) };
        }
        true
    }

    /// Sets each peer for which `wanted`, given its list, its server text and its address, has a setting. `wanted` must
    /// neither allocate nor panic.
    pub fn apply_by_name(
        &self,
        abilities: Abilities,
        mut wanted: impl FnMut(Slot, &[u8], &[u8]) -> Option<Setting>,
    ) {
        let lists = self.write();
        let mut weights_changed = false;
        for (group, list) in lists.iter() {
            // SAFETY: `lists` holds the write locks for as long as the loop runs, so that the peers and their texts stay.
            unsafe {
                for (index, peer) in Peers::of(list).enumerate() {
                    let (server, name) = (bytes(&(*peer.as_ptr()).server), bytes(&(*peer.as_ptr()).name));
                    if let Some(setting) = wanted(Slot { group, index }, server, name) {
                        weights_changed |= set(list, peer, abilities, &setting);
                    }
                }
            }
        }
        if weights_changed {
            // SAFETY: likewise.
            unsafe { Current::weights_changed(lists.primary.as_ptr(), abilities.method) };
        }
    }
}

/// Sets one peer, and the sums of its list. True if its weight changed.
///
/// # Safety
///
/// The write locks of both lists are held, and `peer` is linked in `list`.
unsafe fn set(
    list: NonNull<ngx_http_upstream_rr_peers_t>,
    peer: NonNull<ngx_http_upstream_rr_peer_t>,
    abilities: Abilities,
    setting: &Setting,
) -> bool {
    let (list, peer) = (list.as_ptr(), peer.as_ptr());
    let down = abilities.down(setting.admin);
    let weight = ngx_int_t::try_from(setting.params.weight).unwrap_or(ngx_int_t::MAX);
    // SAFETY: under the write lock nobody else reads or writes these words. The locks beside them are words that other
    // workers spin on, which is why no reference to the whole structure is made.
    unsafe {
        if down != (*peer).down {
            (*list).tries = (*list)
                .tries
                .wrapping_add(usize::from(down == 0))
                .wrapping_sub(usize::from((*peer).down == 0));
            (*peer).down = down;
        }

        let weight_changed = weight != (*peer).weight;
        if weight_changed {
            (*list).total_weight =
                (*list).total_weight.wrapping_add(weight as usize).wrapping_sub((*peer).weight as usize);
            (*peer).weight = weight;
            (*peer).effective_weight = weight;
            // What is left of a large weight would starve the peer, or send it a burst.
            (*peer).current_weight = 0;
            let weighted = (*list).total_weight != (*list).number;
            ngx_http_upstream_rr_peers_t::set_weighted_raw(list, u32::from(weighted));
        }

        (*peer).max_conns = setting.params.max_conns as usize;
        (*peer).max_fails = setting.params.max_fails as usize;
        (*peer).fail_timeout = time_t::try_from(setting.params.fail_timeout).unwrap_or(time_t::MAX);

        if setting.revive {
            (*peer).fails = 0;
            (*peer).effective_weight = (*peer).weight;
        }
        weight_changed
    }
}
