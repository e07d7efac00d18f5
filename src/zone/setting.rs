//! What a peer is to be, and setting it.

use nginx_sys::{ngx_int_t, time_t};

use crate::model::server::Terms;
use crate::model::snapshot::Method;
use crate::model::state::Admin;

use super::peers::{ListMut, PeerMut};

/// The bit of nginx's `down` word for the parameter `down`: NGX_HTTP_UPSTREAM_FAILED.
const FAILED: usize = 1;

/// The bit for the parameter `drain`, where the core has sticky sessions: NGX_HTTP_UPSTREAM_DRAINING.
const DRAINING: usize = 8;

/// The bits that say what was asked of a peer. The others are not the operator's.
const ASKED: usize = FAILED | DRAINING;

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
    match down as usize & ASKED {
        0 => Admin::Up,
        FAILED => Admin::Down,
        _ => Admin::Drain,
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
        if self.down(told) == down as usize & ASKED { told } else { admin_of(down) }
    }

    /// The bits of nginx's `down` word for a wish. Where the core knows no draining peers, one that drains is down.
    pub(super) fn down(self, admin: Admin) -> usize {
        match admin {
            Admin::Up => 0,
            Admin::Drain if self.drains => DRAINING,
            Admin::Down | Admin::Drain => FAILED,
        }
    }
}

/// Sets one peer, and the sums of its list. True if its weight changed.
pub(super) fn set(list: ListMut<'_>, peer: PeerMut<'_>, abilities: Abilities, setting: &Setting) -> bool {
    let mut revive = setting.revive;
    let before = peer.down();
    let down = before & !ASKED | abilities.down(setting.terms.admin);
    if down != before {
        let tries = list.tries().wrapping_add(usize::from(down == 0));
        list.set_tries(tries.wrapping_sub(usize::from(before == 0)));
        peer.set_down(down);
        revive |= down & ASKED == 0;
    }

    let (old, weight) =
        (peer.weight(), ngx_int_t::try_from(setting.terms.params.weight).unwrap_or(ngx_int_t::MAX));
    if weight != old {
        let sum = list.total_weight().wrapping_add(weight as usize);
        list.set_total_weight(sum.wrapping_sub(old as usize));
        peer.set_weight(weight);
        peer.set_effective_weight(weight);
        // What is left of a large weight would starve the peer, or send it a burst.
        peer.set_current_weight(0);
        list.settle_weighted();
    }

    peer.set_max_conns(setting.terms.params.max_conns as usize);
    peer.set_max_fails(setting.terms.params.max_fails as usize);
    peer.set_fail_timeout(time_t::try_from(setting.terms.params.fail_timeout).unwrap_or(time_t::MAX));

    if revive {
        peer.set_fails(0);
        peer.set_effective_weight(weight);
    }
    weight != old
}
