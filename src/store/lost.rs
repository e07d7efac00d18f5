//! What a new configuration takes back of what was changed at run time: noted under the lock, told after it.

use std::fmt;
use std::sync::atomic::Ordering;

use crate::model::server::Terms;

use super::index::Key;
use super::lock::Locked;
use super::records::{Server, StoredTerms, Upstream};

/// Servers that are told one by one; more are counted.
pub const TOLD: usize = 8;

/// Longest name that is kept, in bytes: a socket's path, with `unix:`, has 112.
const NAME_MAX: usize = 112;

/// A name, in memory that is there already.
#[derive(Clone, Copy)]
pub struct Name {
    /// Its bytes.
    bytes: [u8; NAME_MAX],
    /// How many.
    len: usize,
}

impl Name {
    /// A name; what is too long is cut.
    pub fn new(name: &[u8]) -> Self {
        let (mut bytes, mut len) = ([0; NAME_MAX], 0);
        for (to, from) in bytes.iter_mut().zip(name) {
            *to = *from;
            len += 1;
        }
        Self { bytes, len }
    }

    /// As text.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(self.bytes.get(..self.len).unwrap_or_default()).into_owned()
    }
}

/// What is lost of a server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum What {
    /// It was wanted to be otherwise.
    Changed {
        /// What was wanted at run time.
        from: Terms,
        /// What the configuration says.
        to: Terms,
    },
    /// It was added at run time, and is gone.
    Added,
    /// It was removed at run time, and is back.
    Removed,
}

impl fmt::Display for What {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Changed { from, to } => {
                for (nth, difference) in from.differences(to).iter().enumerate() {
                    write!(f, "{}{difference}", if nth == 0 { "" } else { ", " })?;
                }
                Ok(())
            }
            Self::Added => f.write_str("it was added"),
            Self::Removed => f.write_str("it was removed"),
        }
    }
}

/// A server that lost something.
#[derive(Clone, Copy)]
pub struct Lost {
    /// Name of its upstream.
    upstream: Name,
    /// Text of its `server` directive.
    server: Name,
    /// What it lost.
    what: What,
}

/// For the log.
impl fmt::Display for Lost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { upstream, server, what } = self;
        write!(
            f,
            "upstream \"{}\" server \"{}\": the reload dropped run-time changes: {what}",
            upstream.text(),
            server.text()
        )
    }
}

/// The servers that lost something. It takes no memory but its own.
#[derive(Default)]
pub struct Losses {
    /// The first of them.
    told: [Option<Lost>; TOLD],
    /// How many there are.
    count: usize,
}

impl Losses {
    /// How many servers lost something.
    pub fn count(&self) -> usize {
        self.count
    }

    /// The first of them.
    pub fn told(&self) -> impl Iterator<Item = &Lost> {
        self.told.iter().flatten()
    }

    /// Notes a server.
    pub(super) fn note(&mut self, upstream: &[u8], server: &[u8], what: What) {
        if let Some(place) = self.told.get_mut(self.count) {
            *place = Some(Lost { upstream: Name::new(upstream), server: Name::new(server), what });
        }
        self.count += 1;
    }

    /// Notes what is lost of a record, if `base` is what counts from now on.
    pub(super) fn note_wish(&mut self, upstream: &[u8], server: &Server, revision: u64, base: StoredTerms) {
        let wanted = server.wish(revision);
        if wanted.revision > 0 && !wanted.asks_for(base) {
            let what = What::Changed { from: wanted.terms(), to: base.into() };
            self.note(upstream, server.server(), what);
        }
    }

    /// Notes what is lost with a record that nobody has taken over.
    pub(super) fn note_record(&mut self, upstream: &[u8], server: &Server, revision: u64) {
        if server.born > 0 && server.exists(revision) {
            self.note(upstream, server.server(), What::Added);
        } else {
            self.note_wish(upstream, server, revision, server.base);
        }
    }
}

impl Upstream {
    /// Whether a server with this address was removed since a configuration last adopted the upstream, as far as that is
    /// remembered.
    pub(super) fn let_go(&self, name: &[u8]) -> bool {
        self.moves > 0 && self.departed.recalls(Key::Name(name).hash(), self.moves)
    }
}

impl Locked {
    /// What is lost of all upstreams with this store.
    pub fn all_lost(&mut self, losses: &mut Losses) {
        let mut upstream = self.header().upstreams.cast_const();
        // SAFETY: the lock is held, and records of upstreams are never freed.
        while let Some(record) = unsafe { upstream.as_ref() } {
            // SAFETY: likewise.
            unsafe { self.lost(record, losses) };
            upstream = record.next;
        }
    }

    /// What is lost with the servers of an upstream.
    ///
    /// # Safety
    ///
    /// The record is one of this store.
    pub(super) unsafe fn lost(&self, upstream: &Upstream, losses: &mut Losses) {
        let revision = upstream.revision.load(Ordering::Relaxed);
        let mut server = upstream.servers.cast_const();
        // SAFETY: the lock is held, so that linked records stay.
        while let Some(record) = unsafe { server.as_ref() } {
            losses.note_record(self.text(&upstream.name), record, revision);
            server = record.next;
        }
    }
}
