//! What a command must not do, and whom it is about.

use crate::model::address::{Address, AddressError, DEFAULT_PORT, is_url};
use crate::model::id::{Group, ServerId};
use crate::model::query::quoted;
use crate::model::snapshot::{Method, PLACEHOLDERS, Peer, are_none};
use crate::model::state::Admin;

use super::access::Lookup;
use super::command::{Addition, Selector};
use super::error::OpError;
use super::plan::{NewAddress, Plan};

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

/// The address that a peer is to have; none if it has it. Without a port it keeps its own.
pub(super) fn readdress(lookup: &dyn Lookup, peer: &Peer, text: &str) -> Result<Option<NewAddress>, OpError> {
    let present = Address::parse(&peer.name);
    let port = present.as_ref().ok().and_then(Address::port);
    let address =
        Address::parse_with_default_port(text, port.unwrap_or(DEFAULT_PORT)).map_err(OpError::BadAddress)?;
    if present.is_ok_and(|present| present == address) {
        return Ok(None);
    }
    check_free(lookup, &address, peer.slot.group)?;
    Ok(Some(NewAddress { address, from: String::from(&peer.name) }))
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
pub(super) fn check_addition(lookup: &dyn Lookup, addition: &Addition) -> Result<(), OpError> {
    check_free(lookup, &addition.address, addition.group)?;
    if addition.group.is_backup() && !lookup.has_backups() {
        return Err(OpError::NoBackup);
    }
    Ok(())
}

/// Refuses to leave fewer usable servers than the guard asks for, unless the change does not make them fewer.
pub(super) fn check_guard(lookup: &dyn Lookup, plan: &Plan) -> Result<(), OpError> {
    let Some(guard) = lookup.guard() else { return Ok(()) };
    let (usable, all) = lookup.usable();
    let is_up = |admin: Admin| usize::from(admin == Admin::Up);
    let mut left = usable;
    for entry in &plan.entries {
        left = left.saturating_add(is_up(entry.to.admin)).saturating_sub(is_up(entry.from.admin));
    }
    for removal in &plan.removed {
        left = left.saturating_sub(is_up(removal.admin));
    }
    let min = guard.min(all);
    if left < usable && left < min { Err(OpError::Guarded { left, min }) } else { Ok(()) }
}

/// Refuses weights that the method cannot take.
pub(super) fn check_weights(lookup: &dyn Lookup, plan: &Plan) -> Result<(), OpError> {
    let changes = plan.entries.iter().any(|entry| entry.from.params.weight != entry.to.params.weight);
    if !changes && plan.added.is_empty() {
        return Ok(());
    }
    if lookup.method() == Method::HashConsistent {
        let total = plan.entries.iter().fold(lookup.total_weight(), |total, entry| {
            total.saturating_sub(entry.from.params.weight).saturating_add(entry.to.params.weight)
        });
        let total = plan.added.iter().fold(total, |total, added| total.saturating_add(added.params.weight));
        if total > CONSISTENT_WEIGHT_MAX {
            return Err(OpError::WeightTooLarge { total, max: CONSISTENT_WEIGHT_MAX });
        }
    }
    Ok(())
}
