//! What differs between a list and an upstream. The time that it takes grows with the sum of both, not with their
//! product.

use std::collections::HashMap;
use std::collections::hash_map;
use std::ops::Range;

use crate::model::address::{Address, folded};
use crate::model::list::Listed;
use crate::model::query::quoted;

use super::super::access::Whole;
use super::super::error::OpError;
use super::super::plan::Plan;
use super::super::rules::{Tally, check_group, entry, removal};

/// Finds the servers of a list.
pub struct Keys {
    /// By address.
    addresses: HashMap<Address, usize>,
    /// Those whose text is no address, by text, whatever the case of its letters.
    names: HashMap<String, usize>,
    /// Servers that are in the list once more, in the very same words: their places there, and those of the first.
    repeats: Vec<(usize, usize)>,
}

impl Keys {
    /// Keys with room for so many servers.
    ///
    /// # Errors
    ///
    /// There is no memory.
    pub fn with_room(servers: usize) -> Result<Self, OpError> {
        let mut addresses = HashMap::new();
        addresses.try_reserve(servers)?;
        Ok(Self { addresses, names: HashMap::new(), repeats: Vec::new() })
    }

    /// Adds some servers of a list.
    ///
    /// # Errors
    ///
    /// If one is there already, in other words, or there is no memory.
    pub fn add(&mut self, servers: &[Listed], range: Range<usize>) -> Result<(), OpError> {
        for at in range {
            let Some(server) = servers.get(at) else { return Ok(()) };
            let other = match &server.server.address {
                Ok(address) => insert(self.addresses.entry(address.clone()), at),
                Err(_) => {
                    self.names.try_reserve(1)?;
                    insert(self.names.entry(folded(&server.server.text)), at)
                }
            };
            let Some((first, other)) = other.and_then(|other| Some((other, servers.get(other)?))) else {
                continue;
            };
            if *server != (Listed { place: server.place, ..other.clone() }) {
                return Err(twice(server, other));
            }
            self.repeats.try_reserve(1)?;
            self.repeats.push((at, first));
        }
        Ok(())
    }

    /// Whether a server of the list is in it before, in the very same words.
    fn is_repeat(&self, at: usize) -> bool {
        self.repeats.binary_search_by_key(&at, |(at, _)| *at).is_ok()
    }

    /// What is said of these servers.
    pub fn notices(&self, servers: &[Listed]) -> Vec<String> {
        let notice = |&(at, first): &(usize, usize)| {
            let (server, first) = (servers.get(at)?, servers.get(first)?);
            let text = quoted(server.server.text.as_bytes());
            Some(format!("{}: server {text} is also in {}, taken once", server.place, first.place))
        };
        self.repeats.iter().filter_map(notice).collect()
    }
}

/// Notes the place of a server, unless another one is there, whose place is returned.
fn insert<K>(entry: hash_map::Entry<'_, K, usize>, at: usize) -> Option<usize> {
    match entry {
        hash_map::Entry::Occupied(other) => Some(*other.get()),
        hash_map::Entry::Vacant(place) => {
            place.insert(at);
            None
        }
    }
}

/// The refusal of a server that is in a list twice.
fn twice(server: &Listed, other: &Listed) -> OpError {
    OpError::Twice { what: "server", text: server.server.text.clone(), place: other.place }.at(server.place)
}

/// What was found for one server of the list.
#[derive(Clone, Copy, Default)]
struct Match {
    /// The peer that it is, or one of them.
    peer: Option<usize>,
    /// How well it fits.
    rank: u8,
    /// Another server of the list that is the peer with this address.
    taken_by: Option<usize>,
    /// Whether nginx makes and removes the peer with this address.
    managed: bool,
}

/// A comparison that is under way.
pub struct Comparison {
    /// The upstream.
    whole: Whole,
    /// For each server of the list, what was found.
    matches: Vec<Match>,
    /// For each peer, the server of the list that it is.
    claims: Vec<Option<usize>>,
    /// How many peers, then servers of the list, then peers again were gone through.
    at: usize,
    /// What is to be done.
    plan: Plan,
    /// How many peers stay as they are.
    unchanged: usize,
    /// What the upstream's sums would be.
    tally: Tally,
}

impl Comparison {
    /// Begins to compare an upstream with a list of so many servers; the plan is still empty.
    ///
    /// # Errors
    ///
    /// There is no memory.
    pub fn new(whole: Whole, servers: usize, plan: Plan) -> Result<Self, OpError> {
        Ok(Self {
            matches: filled(servers)?,
            claims: filled(whole.peers.len())?,
            whole,
            at: 0,
            plan,
            unchanged: 0,
            tally: Tally::default(),
        })
    }

    /// Name of the upstream.
    pub fn name(&self) -> &str {
        &self.whole.name
    }

    /// How many servers it has.
    pub fn peers(&self) -> usize {
        self.claims.len()
    }

    /// Goes through some more servers. True at the end.
    ///
    /// # Errors
    ///
    /// If a server of the list cannot be.
    pub fn step(&mut self, servers: &[Listed], keys: &Keys, chunk: usize) -> Result<bool, OpError> {
        let (peers, listed) = (self.claims.len(), self.matches.len());
        let end = self.at.saturating_add(chunk).min(peers + listed + peers);
        for at in self.at..end {
            if at < peers {
                self.claim(at, servers, keys)?;
            } else if at < peers + listed {
                self.judge(at - peers, servers, keys)?;
            } else {
                self.set(at - peers - listed, servers)?;
            }
        }
        self.at = end;
        Ok(end == peers + listed + peers)
    }

    /// Finds the server of the list that a peer is.
    fn claim(&mut self, at: usize, servers: &[Listed], keys: &Keys) -> Result<(), OpError> {
        let (Some(peer), Some(claim)) = (self.whole.peers.get(at), self.claims.get_mut(at)) else {
            return Ok(());
        };
        let by_name =
            if keys.names.is_empty() { None } else { keys.names.get(&folded(&peer.server)).copied() };
        let by_address =
            Address::parse(&peer.name).ok().and_then(|address| keys.addresses.get(&address).copied());
        if let Some(listed) = by_name.and_then(|name| servers.get(name)) {
            if peer.managed {
                return Err(OpError::ManagedByDns.at(listed.place));
            }
            if listed.server.group != peer.slot.group {
                // Which address it would have in the other list, only nginx can tell.
                return Err(OpError::OtherGroup.at(listed.place));
            }
        }
        if let Some(found) = by_name.and_then(|name| self.matches.get_mut(name)) {
            // All addresses of a name are that server.
            found.peer = Some(at);
            *claim = by_name;
            if let Some(other) = by_address.and_then(|address| self.matches.get_mut(address)) {
                other.taken_by = by_name;
            }
        } else if let Some(index) = by_address
            && let (Some(found), Some(listed)) = (self.matches.get_mut(index), servers.get(index))
        {
            if peer.managed {
                found.managed = true;
                return Ok(());
            }
            // A server that changes its list is a new one there.
            if listed.server.group != peer.slot.group {
                return Ok(());
            }
            let rank = 1 + u8::from(*listed.server.text == *peer.server);
            if rank > found.rank {
                *claim = Some(index);
                if let Some(worse) = found.peer.replace(at).and_then(|worse| self.claims.get_mut(worse)) {
                    *worse = None;
                }
                found.rank = rank;
            }
        }
        Ok(())
    }

    /// Finds out what a server of the list is that was not found.
    fn judge(&mut self, at: usize, servers: &[Listed], keys: &Keys) -> Result<(), OpError> {
        let (Some(listed), Some(found)) = (servers.get(at), self.matches.get(at)) else { return Ok(()) };
        if found.peer.is_some() || keys.is_repeat(at) {
            return Ok(());
        }
        let address = listed.server.address.as_ref();
        let address = address.map_err(|error| OpError::NoAddress(error.clone()).at(listed.place))?;
        if found.managed {
            return Err(OpError::ManagedByDns.at(listed.place));
        }
        if let Some(other) = found.taken_by.and_then(|other| servers.get(other)) {
            return Err(twice(listed, other));
        }
        check_group(listed.server.group, self.whole.has_backups).map_err(|error| error.at(listed.place))?;
        self.tally.add(&listed.server.terms);
        self.plan.added.try_reserve(1)?;
        self.plan.added.push(listed.server.at(address.clone()));
        Ok(())
    }

    /// Finds out what becomes of a peer.
    fn set(&mut self, at: usize, servers: &[Listed]) -> Result<(), OpError> {
        let Some(peer) = self.whole.peers.get(at) else { return Ok(()) };
        let listed = self.claims.get(at).copied().flatten().and_then(|listed| servers.get(listed));
        self.tally.present(&peer.terms);
        if let (None, false) = (listed, peer.managed) {
            self.tally.remove(&peer.terms);
            self.plan.removed.try_reserve(1)?;
            self.plan.removed.push(removal(peer)?);
            return Ok(());
        }
        // What nginx makes and removes is left alone.
        let to = listed.map_or(peer.terms, |listed| listed.server.terms);
        if peer.terms == to {
            self.unchanged += usize::from(!peer.managed);
        } else {
            self.tally.set(&peer.terms, &to);
            self.plan.entries.try_reserve(1)?;
            self.plan.entries.push(entry(peer, peer.terms.change_to(&to), None)?);
        }
        Ok(())
    }

    /// What differs, and how many servers stay as they are.
    ///
    /// # Errors
    ///
    /// If the upstream must not become so.
    pub fn finish(self, force: bool) -> Result<(Plan, usize), OpError> {
        self.tally.check(self.whole.method, self.whole.guard.filter(|_| !force))?;
        Ok((self.plan, self.unchanged))
    }
}

/// So many times the default.
fn filled<T: Clone + Default>(length: usize) -> Result<Vec<T>, OpError> {
    let mut list = Vec::new();
    list.try_reserve_exact(length)?;
    list.resize(length, T::default());
    Ok(list)
}
