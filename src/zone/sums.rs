//! What nginx counts of its lists.

use super::peers::List;

/// What nginx counts of an upstream, or of one of its lists.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sums {
    /// Peers.
    pub number: u64,
    /// Those that are not down.
    pub usable: u64,
    /// Sum of the weights.
    pub weight: u64,
}

impl Sums {
    /// What nginx counts of a list. Without its lock they are a guess.
    pub(super) fn of(list: List<'_>) -> Self {
        Self { number: list.number() as u64, usable: list.tries() as u64, weight: list.total_weight() as u64 }
    }
}
