//! One upstream in memory, for the tests of the rules.

use std::any::Any;
use std::cell::Cell;

use crate::model::address::Address;
use crate::model::id::{Group, Revision, ServerId, Slot, UpstreamIndex};
use crate::model::params::{Param, Params};
use crate::model::pools::Pools;
use crate::model::server::{Change, Server, Terms};
use crate::model::snapshot::{Method, Peer, Snapshot};
use crate::model::state::{Admin, Failures};

use super::access::{CommitError, Committed, Lookup, Part, Upstreams, Whole};
use super::command::{Action, Command, Selector};
use super::error::OpError;
use super::guard::Guard;
use super::plan::Plan;

/// One upstream whose plans are made by others so often before ours.
pub struct Fake {
    /// Its peers.
    pub peers: Vec<Peer>,
    /// How it chooses.
    pub method: Method,
    /// Whether there may be backups.
    pub backups: bool,
    /// How many must be left.
    pub guard: Option<Guard>,
    /// How often a commit finds that others were faster.
    pub moved: Cell<usize>,
}

impl Upstreams for Fake {
    fn count(&self) -> usize {
        1
    }

    fn named(&self, name: &str) -> Vec<UpstreamIndex> {
        if name == "u" { vec![UpstreamIndex(0)] } else { Vec::new() }
    }

    fn pools(&self, _: UpstreamIndex) -> Option<Pools> {
        None
    }

    fn spare(&self, _: usize) -> Option<Box<dyn Any>> {
        Some(Box::new(()))
    }

    fn room(&self, _: UpstreamIndex) -> Result<(), OpError> {
        Ok(())
    }

    fn snapshot(&self, _: UpstreamIndex) -> Result<Snapshot, OpError> {
        Err(OpError::UpstreamNotFound(String::new()))
    }

    fn only(&self, upstream: UpstreamIndex, _: &[ServerId]) -> Result<Snapshot, OpError> {
        self.snapshot(upstream)
    }

    fn lookup(&self, _: UpstreamIndex) -> Result<Box<dyn Lookup + '_>, OpError> {
        Ok(Box::new(self))
    }

    fn commit(&self, _: UpstreamIndex, plan: &Plan) -> Result<Committed, CommitError> {
        if let Some(left) = self.moved.get().checked_sub(1) {
            self.moved.set(left);
            return Err(CommitError::Moved);
        }
        let members = plan.added.len() + plan.removed.len();
        let is_change = members > 0
            || plan
                .entries
                .iter()
                .any(|entry| entry.is_change() || (entry.restates() && plan.note.is_some()));
        let ids = (self.peers.len() as u64..).map(ServerId);
        Ok(Committed {
            revision: Revision(plan.revision.0 + u64::from(is_change)),
            added: ids.take(plan.added.len()).collect(),
            left: (self.peers.len() + plan.added.len()).saturating_sub(plan.removed.len()),
        })
    }

    fn whole(&self, _: UpstreamIndex) -> Result<Whole, OpError> {
        Ok(Whole {
            name: "u".into(),
            revision: Revision(7),
            membership: 3,
            method: self.method,
            has_backups: self.backups,
            guard: self.guard,
            peers: self.peers.clone(),
        })
    }

    fn prepare(&self, part: &mut Part, limit: usize) -> Result<bool, OpError> {
        // Each call prepares as many as it may.
        let ready =
            part.ready.take().and_then(|ready| ready.downcast::<usize>().ok()).map_or(0, |ready| *ready);
        let ready = (ready + limit).min(part.plan.added.len());
        part.ready = Some(Box::new(ready));
        Ok(ready == part.plan.added.len())
    }

    fn commit_all(&self, parts: &mut [Part]) -> Result<Vec<Committed>, (usize, CommitError)> {
        let all = parts.iter().enumerate();
        all.map(|(at, part)| self.commit(part.upstream, &part.plan).map_err(|error| (at, error))).collect()
    }
}

impl Lookup for &Fake {
    fn revision(&self) -> Revision {
        Revision(7)
    }

    fn membership(&self) -> u64 {
        3
    }

    fn method(&self) -> Method {
        self.method
    }

    fn has_backups(&self) -> bool {
        self.backups
    }

    fn guard(&self) -> Option<Guard> {
        self.guard
    }

    fn usable(&self) -> (usize, usize) {
        (self.peers.iter().filter(|peer| peer.terms.admin == Admin::Up).count(), self.peers.len())
    }

    fn total_weight(&self) -> u64 {
        self.peers.iter().map(|peer| peer.terms.params.weight).sum()
    }

    fn select(&self, selector: &Selector) -> Result<Vec<Peer>, OpError> {
        Ok(self.peers.iter().filter(|peer| selector.chooses(peer)).cloned().collect())
    }

    fn place(&self, peers: &mut [Peer]) {
        peers.sort_by_key(|peer| peer.slot);
    }
}

/// A peer that is up.
pub fn peer(id: u64, group: Group, index: usize, server: &str, name: &str) -> Peer {
    Peer {
        id: Some(ServerId(id)),
        slot: Slot { group, index },
        server: server.into(),
        name: name.into(),
        terms: Terms::default(),
        effective_weight: 1,
        current_weight: 0,
        active: 0,
        down: 0,
        managed: false,
        reason: None,
        failures: Failures::default(),
        last_failure: None,
    }
}

/// Round robin over a host with two addresses, an IPv6 address, a socket, and a backup.
pub fn fake() -> Fake {
    let peers = vec![
        peer(0, Group::Primary, 0, "host:81", "127.0.0.1:81"),
        peer(1, Group::Primary, 1, "host:81", "127.0.0.2:81"),
        peer(2, Group::Primary, 2, "[::1]", "[::1]:80"),
        peer(3, Group::Primary, 3, "unix:/s", "unix:/s"),
        peer(4, Group::Backup, 0, "127.0.0.1:82", "127.0.0.1:82"),
    ];
    Fake { peers, method: Method::RoundRobin, backups: true, guard: None, moved: Cell::new(0) }
}

/// A command of a test.
pub fn act(servers: Vec<Selector>, action: Action) -> Command {
    Command {
        upstream: UpstreamIndex(0),
        servers,
        action,
        force: false,
        client: "192.0.2.1".into(),
        note: None,
    }
}

/// A change of parameters or state.
pub fn command(servers: Vec<Selector>, change: Change) -> Command {
    act(servers, Action::Set(change))
}

/// Up, down or drain.
pub fn admin(admin: Admin) -> Change {
    Change { admin: Some(admin), params: Vec::new() }
}

/// A new weight.
pub fn weight(weight: u64) -> Change {
    Change { admin: None, params: vec![(Param::Weight, weight)] }
}

/// A new server with this weight.
pub fn add(server: &str, group: Group, weight: u64) -> Command {
    let address = Address::parse(server).unwrap();
    let params = Params { weight, ..Params::default() };
    let terms = Terms { admin: Admin::Up, params };
    act(Vec::new(), Action::Add(Server { text: server.into(), address, group, terms }))
}

/// Another address of a server.
pub fn readdress(server: Selector, address: &str) -> Command {
    act(vec![server], Action::Readdress { address: address.into(), change: Change::default() })
}
