//! What a command must not do, and whom it is about.

use crate::model::address::{Address, AddressError, DEFAULT_PORT, is_url};
use crate::model::id::{Group, ServerId};
use crate::model::query::quoted;
use crate::model::server::{Change, Server, Terms};
use crate::model::snapshot::{Method, PLACEHOLDERS, Peer, are_none};

use super::access::Lookup;
use super::command::Selector;
use super::error::OpError;
use super::guard::Guard;
use super::plan::{Entry, NOTE_MAX, Removal};

/// Largest sum of weights under consistent hash: nginx makes 160 points of 16 bytes for each unit, in each worker,
/// which is 40 MB at this sum.
pub(super) const CONSISTENT_WEIGHT_MAX: u64 = 16_384;

/// Servers that are suggested in place of one that is not there.
const SUGGESTIONS: usize = 3;

/// The peers that a selector chooses; at least one.
pub(super) fn select(lookup: &dyn Lookup, selector: &Selector) -> Result<Vec<Peer>, OpError> {
    let peers = lookup.select(selector)?;
    let is_placeholder = are_none(&peers) && is_alone(lookup);
    if !peers.is_empty() && !is_placeholder {
        return Ok(peers);
    }
    Err(match selector {
        Selector::Position(position) => OpError::BadPosition(*position),
        Selector::Server(text) if is_url(text) => {
            OpError::BadAddress(AddressError::Url(quoted(text.as_bytes())))
        }
        Selector::Server(text) => nearly_found(lookup, text)?,
        Selector::Id(_) | Selector::Host(_) => OpError::ServerNotFound(selector.text()),
    })
}

/// Whether the upstream has one server.
fn is_alone(lookup: &dyn Lookup) -> bool {
    lookup.usable().1 == 1
}

/// The server that stands for none, if that is all there is: it leaves when a server comes.
pub(super) fn placeholder(lookup: &dyn Lookup) -> Result<Option<Peer>, OpError> {
    if !is_alone(lookup) {
        return Ok(None);
    }
    for text in PLACEHOLDERS {
        let peers = lookup.select(&Selector::Server(text.to_owned()))?;
        if are_none(&peers) {
            return Ok(peers.into_iter().next());
        }
    }
    Ok(None)
}

/// The refusal of a text that chooses no server: with those that run on its host, if there are any.
fn nearly_found(lookup: &dyn Lookup, text: &str) -> Result<OpError, OpError> {
    let peers = lookup.select(&Selector::Host(text.to_owned()))?;
    if are_none(&peers) && is_alone(lookup) {
        return Ok(OpError::ServerNotFound(text.to_owned()));
    }
    let mut found: Vec<String> = peers.iter().map(|peer| String::from(&peer.server)).collect();
    found.dedup();
    found.truncate(SUGGESTIONS);
    let text = text.to_owned();
    Ok(if found.is_empty() { OpError::ServerNotFound(text) } else { OpError::NearlyFound { text, found } })
}

/// The one peer that is chosen, which may leave or change its address.
pub(super) fn select_one(lookup: &dyn Lookup, selectors: &[Selector]) -> Result<Peer, OpError> {
    let mut peers = Vec::new();
    for selector in selectors {
        peers.extend(select(lookup, selector)?);
    }
    match peers.as_slice() {
        [] => Err(OpError::ServerNotFound(String::new())),
        // None of them could be chosen by its id.
        several if several.iter().all(|peer| peer.managed) => Err(OpError::ManagedByDns),
        [peer] => Ok(peer.clone()),
        several => Err(OpError::Ambiguous(several.iter().filter_map(|peer| peer.id).collect())),
    }
}

/// Identity of a peer; one that the store had no room for has none, and cannot be changed.
pub(super) fn id(peer: &Peer) -> Result<ServerId, OpError> {
    peer.id.ok_or_else(|| OpError::ServerNotFound(String::from(&peer.server)))
}

/// A peer as a plan hands it on.
fn server(peer: &Peer) -> Server<String> {
    let (text, address) = (String::from(&peer.server), String::from(&peer.name));
    Server { text, address, group: peer.slot.group, terms: peer.terms }
}

/// That a peer changes.
pub(super) fn entry(peer: &Peer, asked: Change, readdress: Option<Address>) -> Result<Entry, OpError> {
    let to = peer.terms.with(&asked);
    Ok(Entry { id: id(peer)?, server: server(peer), to, asked, readdress })
}

/// That a peer leaves.
pub(super) fn removal(peer: &Peer) -> Result<Removal, OpError> {
    Ok(Removal { id: id(peer)?, server: server(peer), active: peer.active })
}

/// The address that a peer is to have; none if it has it. Without a port it keeps its own.
pub(super) fn readdress(lookup: &dyn Lookup, peer: &Peer, text: &str) -> Result<Option<Address>, OpError> {
    let present = Address::parse(&peer.name);
    let port = present.as_ref().ok().and_then(Address::port);
    let address =
        Address::parse_with_default_port(text, port.unwrap_or(DEFAULT_PORT)).map_err(OpError::BadAddress)?;
    if present.is_ok_and(|present| present == address) {
        return Ok(None);
    }
    check_free(lookup, &address, peer.slot.group)?;
    Ok(Some(address))
}

/// Refuses an address that a server of the upstream has.
fn check_free(lookup: &dyn Lookup, address: &Address, group: Group) -> Result<(), OpError> {
    let present = lookup.select(&Selector::Server(address.to_string()))?;
    if present.iter().any(|peer| peer.slot.group == group) {
        return Err(OpError::Exists(address.to_string()));
    }
    if present.is_empty() { Ok(()) } else { Err(OpError::OtherGroup) }
}

/// Refuses a server that is there, or that the upstream has no list for.
pub(super) fn check_addition(lookup: &dyn Lookup, server: &Server) -> Result<(), OpError> {
    check_free(lookup, &server.address, server.group)?;
    check_group(server.group, lookup.has_backups())
}

/// Refuses a list that the upstream does not have.
pub(super) fn check_group(group: Group, has_backups: bool) -> Result<(), OpError> {
    if group.is_backup() && !has_backups { Err(OpError::NoBackup) } else { Ok(()) }
}

/// Refuses a note that is longer than the store keeps.
pub(super) fn check_note(note: Option<&str>) -> Result<(), OpError> {
    match note.map_or(0, str::len) {
        len if len > NOTE_MAX => Err(OpError::NoteTooLong { len, max: NOTE_MAX }),
        _ => Ok(()),
    }
}

/// What a change makes of the sums of an upstream.
#[derive(Clone, Copy, Default)]
pub(super) struct Tally {
    /// Servers that are there before.
    servers: usize,
    /// Those of them that are up.
    usable: usize,
    /// Servers that are up after it.
    left: usize,
    /// Sum of the weights after it.
    weight: u64,
    /// Whether the change adds weights, or changes them.
    reweighs: bool,
}

impl Tally {
    /// The sums of an upstream that nothing was done to yet.
    pub fn of(lookup: &dyn Lookup) -> Self {
        let (usable, servers) = lookup.usable();
        Self { servers, usable, left: usable, weight: lookup.total_weight(), reweighs: false }
    }

    /// Counts a server that is there in.
    pub fn present(&mut self, terms: &Terms) {
        self.servers += 1;
        self.usable += usize::from(terms.is_up());
        self.left += usize::from(terms.is_up());
        self.weight = self.weight.saturating_add(terms.params.weight);
    }

    /// A server that was counted changes.
    pub fn set(&mut self, from: &Terms, to: &Terms) {
        let reweighs = self.reweighs || from.params.weight != to.params.weight;
        self.remove(from);
        self.add(to);
        self.reweighs = reweighs;
    }

    /// A server that was counted leaves.
    pub fn remove(&mut self, terms: &Terms) {
        self.left = self.left.saturating_sub(usize::from(terms.is_up()));
        self.weight = self.weight.saturating_sub(terms.params.weight);
    }

    /// A server is new.
    pub fn add(&mut self, terms: &Terms) {
        self.left = self.left.saturating_add(usize::from(terms.is_up()));
        self.weight = self.weight.saturating_add(terms.params.weight);
        self.reweighs = true;
    }

    /// Refuses weights that the method cannot take, and to leave fewer usable servers than the guard asks for, unless the
    /// change does not make them fewer.
    pub fn check(&self, method: Method, guard: Option<Guard>) -> Result<(), OpError> {
        let is_heavy = method == Method::HashConsistent && self.weight > CONSISTENT_WEIGHT_MAX;
        if is_heavy && self.reweighs {
            return Err(OpError::WeightTooLarge { total: self.weight, max: CONSISTENT_WEIGHT_MAX });
        }
        match guard.map_or(0, |guard| guard.min(self.servers)) {
            min if self.left < self.usable && self.left < min => {
                Err(OpError::Guarded { left: self.left, min })
            }
            _ => Ok(()),
        }
    }
}
