//! What peers were at one moment: copied out under the locks, and used after them.

use std::ops::Range;

use crate::model::id::Slot;
use crate::model::params::Params;
use crate::model::snapshot::{Faults, Totals, Zombies};

use super::peers::Peer;
use super::place::Place;

/// What one peer was at one moment. Texts are ranges of [`Copy::text`].
#[derive(Clone, Debug)]
pub struct Row {
    /// Where it stood.
    pub slot: Slot,
    /// Text of the `server` directive.
    pub server: Range<usize>,
    /// Address, as nginx writes it.
    pub name: Range<usize>,
    /// weight, max_conns, max_fails, fail_timeout.
    pub params: Params,
    /// Weight lowered after failures.
    pub effective_weight: i64,
    /// Round robin's running sum.
    pub current_weight: i64,
    /// Active requests.
    pub conns: u64,
    /// Failures counted.
    pub fails: u64,
    /// When a request last failed, in seconds since the epoch; 0 for never.
    pub accessed: i64,
    /// When nginx last judged it, likewise.
    pub checked: i64,
    /// nginx's word: 0 when the balancers may choose it.
    pub down: u64,
    /// Whether nginx makes and removes it as a name resolves.
    pub managed: bool,
    /// Where it is, while the count of changes stays that of the copy.
    pub place: Place,
}

/// All peers of an upstream at one moment.
#[derive(Clone, Debug, Default)]
pub struct Copy {
    /// Primaries, then backups, each in nginx's order.
    pub rows: Vec<Row>,
    /// The bytes of all names and server texts.
    pub text: Vec<u8>,
    /// How often the lists changed.
    pub membership: u64,
    /// Whether there is but one server, which nginx treats otherwise.
    pub single: bool,
    /// What the list of primaries says of itself.
    pub primary: Totals,
    /// The same of the backups.
    pub backup: Option<Totals>,
    /// Peers that left while requests used them.
    pub zombies: Zombies,
    /// What is not as it must be.
    pub faults: Faults,
}

impl Copy {
    /// Room for so many rows, and so many bytes of text.
    pub(super) fn with_room(rows: usize, text: usize) -> Self {
        Self { rows: Vec::with_capacity(rows), text: Vec::with_capacity(text), ..Self::default() }
    }

    /// The bytes of one of the texts of a row.
    pub fn bytes(&self, range: &Range<usize>) -> &[u8] {
        self.text.get(range.clone()).unwrap_or_default()
    }

    /// One of the texts of a row; bytes that are no UTF-8 are replaced.
    #[cfg(all(test, feature = "nginx-objs"))]
    pub fn string(&self, range: &Range<usize>) -> String {
        String::from_utf8_lossy(self.bytes(range)).into_owned()
    }
}

/// Copies one peer; `text` has room for its texts.
pub(super) fn row(peer: Peer<'_>, slot: Slot, managed: bool, text: &mut Vec<u8>) -> Row {
    let (server, name) = (append(text, peer.server()), append(text, peer.name()));
    Row {
        slot,
        server,
        name,
        params: Params {
            weight: u64::try_from(peer.weight()).unwrap_or(0),
            max_conns: peer.max_conns() as u64,
            max_fails: peer.max_fails() as u64,
            fail_timeout: u64::try_from(peer.fail_timeout()).unwrap_or(0),
        },
        effective_weight: peer.effective_weight() as i64,
        current_weight: peer.current_weight() as i64,
        conns: peer.conns() as u64,
        fails: peer.fails() as u64,
        accessed: peer.accessed(),
        checked: peer.checked(),
        down: peer.down() as u64,
        managed,
        place: peer.place(),
    }
}

/// Appends a string to the text, and says where it stands.
fn append(text: &mut Vec<u8>, string: &[u8]) -> Range<usize> {
    let start = text.len();
    text.extend_from_slice(string);
    start..text.len()
}
