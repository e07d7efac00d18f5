//! What the store knows of one peer.

use crate::model::state::Admin;
use crate::store::find::Found;

/// What the store knows of one peer.
#[derive(Clone, Copy, Default)]
pub struct Known {
    /// Identity.
    pub id: Option<u64>,
    /// What was asked of it, and whether the configuration did.
    pub told: Option<(Admin, bool)>,
}

impl Known {
    /// What its record says, if the upstream is at `revision`.
    pub fn of(server: &Found<'_>, revision: u64) -> Self {
        let wish = server.wish(revision);
        Self { id: Some(server.id()), told: Some((wish.terms().admin, wish.revision == 0)) }
    }
}
