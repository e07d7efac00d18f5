//! Names for things that would otherwise be bare numbers.

use std::fmt;

/// Identity of a server within its upstream: from 0 in configuration order, never reused while the store lives.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ServerId(pub u64);

impl fmt::Display for ServerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Number of committed changes of an upstream.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Revision(pub u64);

impl fmt::Display for Revision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Place of an upstream among those of the http block, in configuration order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UpstreamIndex(pub usize);

/// One of the two lists in which nginx keeps the peers of an upstream.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Group {
    /// Servers that are tried first.
    Primary,
    /// Servers marked `backup`.
    Backup,
}

impl Group {
    /// Whether this is the list of `backup` servers.
    pub fn is_backup(self) -> bool {
        self == Self::Backup
    }
}

/// Where a peer stands: its list, and its position there, from 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Slot {
    /// The list.
    pub group: Group,
    /// The position in the list, from 0.
    pub index: usize,
}
