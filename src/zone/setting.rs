//! What a peer is to be, and setting it.

use std::ptr::NonNull;

use nginx_sys::{ngx_int_t, time_t};

use crate::model::params::Params;
use crate::model::snapshot::Method;
use crate::model::state::Admin;

use super::nginx_peers::{RawPeer, RawPeers};

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

/// Notes whether any weight of a list differs from 1, as nginx does.
///
/// # Safety
///
/// The write lock of the list is held.
pub(super) unsafe fn set_weighted(list: *mut RawPeers) {
    // SAFETY: see above.
    unsafe {
        let weighted = (*list).total_weight != (*list).number;
        RawPeers::set_weighted_raw(list, u32::from(weighted));
    }
}

/// Sets one peer, and the sums of its list. True if its weight changed.
///
/// # Safety
///
/// The write locks of both lists are held, and `peer` is linked in `list`.
pub(super) unsafe fn set(
    list: NonNull<RawPeers>,
    peer: NonNull<RawPeer>,
    abilities: Abilities,
    setting: &Setting,
) -> bool {
    let (list, peer) = (list.as_ptr(), peer.as_ptr());
    let down = abilities.down(setting.admin);
    let weight = ngx_int_t::try_from(setting.params.weight).unwrap_or(ngx_int_t::MAX);
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

        (*peer).max_conns = setting.params.max_conns as usize;
        (*peer).max_fails = setting.params.max_fails as usize;
        (*peer).fail_timeout = time_t::try_from(setting.params.fail_timeout).unwrap_or(time_t::MAX);

        if revive {
            (*peer).fails = 0;
            (*peer).effective_weight = (*peer).weight;
        }
        weight_changed
    }
}
