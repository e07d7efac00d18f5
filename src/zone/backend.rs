//! What differs between the two kinds of nginx.
//!
//! Since 1.27.3 nginx counts references to peers and changes to their lists, so that peers come and go (`native`).
//! Before that the lists of a running configuration never change, and servers come and go in places that were made for
//! them (`slots`).

use std::ffi::c_void;
use std::ptr::NonNull;

use crate::model::id::Group;
use crate::model::server::Server;
use crate::model::snapshot::{Faults, Method, Zombies};

use super::capacity::Planned;
use super::edits::{Edits, Touched};
use super::handle::Zone;
use super::lock::{Lists, Writing};
use super::nginx_peers::{RawPeer, UpstreamConf};
use super::peers::{List, Peer};
use super::place::Place;
use super::prepared::Full;
use super::setting::Abilities;
use super::sums::Sums;

/// One kind of nginx.
pub trait Backend {
    /// A server that is whole, but in no list. Dropping it gives back what it holds.
    type Prepared;

    /// A list of backups that is linked nowhere yet.
    type PreparedList;

    /// What a worker's balancer computed from the lists and would never compute again.
    type Tables;

    /// Whether a peer may get another name while a request that it served is yet to be logged.
    const NAMES_CHANGE: bool;

    /// Whether balancers refuse by themselves to choose once more when the lists changed under a request.
    const REFUSES_OLD: bool;

    /// Prepares the lists of an upstream that can be changed from now on, which are to have so many slots where they
    /// cannot grow. False if the zone has too little room: then they can be changed in part.
    ///
    /// # Safety
    ///
    /// Called by the master, in `init_module`, once for a zone with the module's words in it.
    unsafe fn begin(zone: &Zone, planned: Planned) -> bool;

    /// The tables of an upstream that have to follow its lists; none if it has none. The error says what is not as the
    /// module expects it.
    ///
    /// # Safety
    ///
    /// Called in `postconfiguration`. `settings` is what nginx's module of this method keeps for this upstream, which has a
    /// zone, and whose `peer.data` is the list that the method made. The value is dropped before the pool of the
    /// configuration is freed, at the latest by one of its cleanups.
    ///
    /// # Errors
    ///
    /// Words for [`crate::model::snapshot::StaticReason::Layout`].
    unsafe fn tables(
        us: NonNull<UpstreamConf>,
        method: Method,
        settings: NonNull<c_void>,
    ) -> Result<Option<Self::Tables>, &'static str>;

    /// The count of changes that new tables show; none if they are yet to be computed for the first time.
    fn shown(tables: &Self::Tables) -> Option<u64>;

    /// Computes the tables anew. Returns the count of changes that they show; none if the locks are stuck or there is no
    /// memory: then they stay as they are.
    ///
    /// # Safety
    ///
    /// Called in a worker, not by the balancer itself. `zone` has the peers of the same upstream.
    unsafe fn refresh(tables: &Self::Tables, zone: &Zone) -> Option<u64>;

    /// Whether the balancer may work by the tables. If not, it would make some of its own, which do not last.
    fn is_usable(tables: &Self::Tables) -> bool;

    /// How often the lists changed: what workers compare to see that what they know of them is old.
    fn membership(zone: &Zone) -> u64;

    /// Counts a change to the lists, or to weights that balancers keep in tables.
    fn moved(lists: &Writing);

    /// Requests that hold a reference to the peer; 0 where nginx counts none.
    fn refs(peer: Peer<'_>) -> u64;

    /// Whether nginx makes and removes the peer as a name resolves.
    fn managed(peer: Peer<'_>) -> bool;

    /// What nginx counts of the servers of a list of the zone. Without the locks it is a guess.
    fn sums(zone: &Zone, group: Group, list: List<'_>) -> Sums;

    /// Whether the peer is a place that no server has.
    fn is_blank(zone: &Zone, peer: Peer<'_>) -> bool;

    /// Makes a server ready to be linked.
    ///
    /// # Errors
    ///
    /// The zone is full; nothing of it stays taken.
    fn prepare(zone: &Zone, new: &Server, abilities: Abilities) -> Result<Self::Prepared, Full>;

    /// Its address, as nginx writes it.
    fn name(prepared: &Self::Prepared) -> Vec<u8>;

    /// The peer that it is to be, which is known for good when it was seated; none where a place is yet to be found for it.
    fn place(prepared: &Self::Prepared) -> Option<Place>;

    /// What finds the server among those that left by their addresses; none where it is not looked for so.
    fn key(prepared: &Self::Prepared) -> Option<u64>;

    /// Makes a list of backups, unless there is one.
    ///
    /// # Errors
    ///
    /// The zone is full.
    fn prepare_backups(zone: &Zone) -> Result<Option<Self::PreparedList>, Full>;

    /// Finds a place for each server of the edits.
    ///
    /// # Safety
    ///
    /// All places in the edits are those of peers that are linked in the lists.
    unsafe fn seat(
        lists: &Writing,
        edits: &mut Edits<Self::Prepared, Self::PreparedList>,
    ) -> Result<(), NoSeat>;

    /// Makes the edits. Those whose server has no place are left out.
    ///
    /// # Safety
    ///
    /// All places in the edits are those of peers that are linked in the lists, and the edits were seated under the same
    /// locks.
    unsafe fn edit(
        lists: &mut Writing,
        abilities: Abilities,
        edits: &mut Edits<Self::Prepared, Self::PreparedList>,
    ) -> Touched;

    /// Makes what depends on the whole of a list exact, after edits that touched its members.
    fn settle(lists: &Writing);

    /// Whether the peer stands for no server of the upstream any more.
    ///
    /// # Safety
    ///
    /// A request holds the peer.
    unsafe fn has_left(zone: &Zone, peer: NonNull<RawPeer>) -> bool;

    /// Servers that left while requests used them.
    fn zombies(lists: &Lists) -> Zombies;

    /// What is not as it must be, of what the totals do not show.
    fn faults(lists: &Lists) -> Faults;

    /// Whether anything is left for [`Backend::reap`].
    fn has_remains(zone: &Zone) -> bool;

    /// Frees what left and is not used any more. The caller holds the store's lock, so that only one process does so.
    fn reap(zone: &Zone);
}

/// Why there is no place for a server.
#[cfg_attr(nginx_peer_refs, expect(dead_code, reason = "since 1.27.3 there is no end of places"))]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NoSeat {
    /// The list has as many servers as it can: so many.
    Capacity(Group, usize),
    /// The places that are left are those of servers that left and still serve requests.
    Busy,
    /// The zone had no room for what the module needs to fill places; the bytes of one.
    Memory(usize),
}

/// Whether the method keeps weights in tables of each worker, made when the count of changes moves.
pub(super) fn caches_weights(method: Method) -> bool {
    matches!(method, Method::Random | Method::HashConsistent)
}
