//! How much memory of the heap is needed for what is done with an upstream. It is kept back before any lock is taken, so
//! that nothing fails in the middle; a request for which there is not as much is refused.

use crate::model::id::ServerId;
use crate::model::snapshot::Peer;
use crate::nginx::memory::{Spare, spare};
use crate::ops::OpError;
use crate::store::commit::{Arrival, Change};
use crate::store::records;
use crate::zone::{Fate, Row, Spot, Zone};

use super::known::Known;

/// What a reply says of a server, in bytes: its view, and its text while the reply grows.
const REPLY: usize = 1_536;

/// Bytes for a server that is looked at: its row, what the store knows, and what is made of both.
const LOOK: usize = size_of::<Row>() + size_of::<(Known, usize, records::Reason)>() + size_of::<Peer>();

/// Bytes for a server that is changed: what becomes of it, twice, as these lists grow, and its texts.
const CHANGE: usize = 2 * (size_of::<(Spot, Fate)>() + size_of::<(ServerId, String, Vec<u8>)>())
    + 2 * (size_of::<Change>() + size_of::<Arrival<'_>>() + size_of::<usize>())
    + 512;

/// Copies of a text: as bytes, as a string, and shared.
const TEXTS: usize = 3;

/// For a look at all peers of a zone.
pub fn to_look(zone: &Zone) -> Result<Spare, OpError> {
    look(zone, LOOK)
}

/// For that, for a change of any of them, and for a reply about all of them.
pub fn to_look_and_tell(zone: &Zone) -> Result<Spare, OpError> {
    look(zone, LOOK + CHANGE + REPLY)
}

/// For a look at all peers of a zone, with so many bytes for each.
fn look(zone: &Zone, each: usize) -> Result<Spare, OpError> {
    let (rows, text) = zone.expected();
    kept(rows.saturating_mul(each).saturating_add(text.saturating_mul(TEXTS)))
}

/// For a look at so many servers of the configuration.
pub fn to_list(servers: usize) -> Result<Spare, OpError> {
    kept(servers.saturating_mul(LOOK))
}

/// For the change of so many servers.
pub fn to_change(servers: usize) -> Result<Spare, OpError> {
    kept(servers.saturating_mul(CHANGE))
}

/// So many bytes.
fn kept(bytes: usize) -> Result<Spare, OpError> {
    spare(bytes).ok_or(OpError::NoMemory)
}
