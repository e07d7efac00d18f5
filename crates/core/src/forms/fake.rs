//! Upstreams in memory, for the tests of the handlers.

#![allow(clippy::indexing_slicing, clippy::unwrap_used, reason = "a test may fail in any way")]

use std::any::Any;
use std::cell::RefCell;

use crate::http::Response;
use crate::model::id::{Group, Revision, ServerId, Slot, UpstreamIndex};
use crate::model::pools::{Pool, Pools, Standing};
use crate::model::server::{Server, Terms};
use crate::model::snapshot::{Faults, Memory, Method, Peer, Snapshot, StaticReason, Totals, Zombies};
use crate::model::state::{Admin, Failures, Reason};
use crate::model::time::{Seconds, UnixTime};
use crate::ops::{
    CommitError, Committed, Guard, Lookup, OpError, Part, Plan, Selector, Upstreams, Whole, named,
};

/// The time of all calls in tests.
pub const NOW: UnixTime = UnixTime(1_000_000_000);

/// Upstreams that are changed as the plans say.
pub struct Fake {
    /// The upstreams.
    upstreams: RefCell<Vec<Snapshot>>,
    /// What each commit is refused with, if with anything.
    pub refuse: Option<OpError>,
    /// Whether there is no memory to look at any of them.
    pub no_memory: bool,
    /// How many usable servers each upstream must keep.
    pub guard: Option<Guard>,
}

/// What a reply says: its body, but for the end of the line of JSON and of a refusal.
pub fn said(response: &Response) -> String {
    let body = String::from_utf8(response.body.clone()).unwrap();
    let is_line = response.content_type == "application/json" || response.status >= 400;
    body.strip_suffix('\n').filter(|_| is_line).map(str::to_owned).unwrap_or(body)
}

/// A primary peer, up, with the default parameters.
pub fn peer(index: usize, server: &str) -> Peer {
    let terms = Terms::default();
    Peer {
        id: Some(ServerId(index as u64)),
        slot: Slot { group: Group::Primary, index },
        server: server.into(),
        name: server.into(),
        terms,
        effective_weight: 1,
        current_weight: 0,
        active: 0,
        down: 0,
        managed: false,
        reason: None,
        failures: Failures {
            fails: 0,
            max_fails: terms.params.max_fails,
            fail_timeout: terms.params.fail_timeout,
            checked: 0,
            single: false,
        },
        last_failure: None,
    }
}

/// A backup peer; `index` is its place among the backups, `id` its identity.
pub fn backup(id: u64, index: usize, server: &str) -> Peer {
    Peer { id: Some(ServerId(id)), slot: Slot { group: Group::Backup, index }, ..peer(index, server) }
}

/// An upstream of these peers.
pub fn upstream(name: &str, peers: Vec<Peer>) -> Snapshot {
    let memory = Memory { size: 65_536, page: 4_096, pages_total: 15, pages_free: 9 };
    Snapshot {
        name: name.to_owned(),
        zone: Some(format!("{name}_zone")),
        method: Some(Method::RoundRobin),
        fixed: None,
        revision: Revision(3),
        memory: Some(memory),
        pools: None,
        primary: Totals { number: 3, total_weight: 3, tries: 3, counted: 3, ..Totals::default() },
        backup: None,
        zombies: Zombies::default(),
        faults: Faults::default(),
        peers,
    }
}

/// `backend` with three primaries and a backup, and `fixed`, which is static.
pub fn fake() -> Fake {
    let mut fixed = upstream("fixed", vec![Peer { id: None, ..peer(0, "10.0.0.1:80") }]);
    fixed.zone = None;
    fixed.memory = None;
    fixed.revision = Revision(0);
    fixed.fixed = Some(StaticReason::NoZone { kilobytes: 64 });
    let mut named = peer(2, "app.example.com");
    named.name = "127.0.0.1:8083".into();
    let peers =
        vec![peer(0, "127.0.0.1:8081"), peer(1, "127.0.0.1:8082"), named, backup(3, 0, "127.0.0.1:8084")];
    Fake::new(vec![upstream("backend", peers), fixed])
}

impl Fake {
    /// These upstreams.
    pub fn new(mut upstreams: Vec<Snapshot>) -> Self {
        let names: Vec<_> = upstreams.iter().map(|upstream| upstream.name.clone()).collect();
        for pool in upstreams.iter_mut().filter_map(|it| it.pools.as_mut()).flat_map(|it| &mut it.list) {
            let place = names.iter().position(|name| *name == pool.name);
            pool.upstream = UpstreamIndex(place.unwrap_or(usize::MAX));
        }
        Self { upstreams: RefCell::new(upstreams), refuse: None, no_memory: false, guard: None }
    }

    /// A peer of `backend` by its place in the listing.
    pub fn backend_peer(&self, place: usize) -> Peer {
        self.upstreams.borrow()[0].peers[place].clone()
    }
}

impl Upstreams for Fake {
    fn count(&self) -> usize {
        self.upstreams.borrow().len()
    }

    fn named(&self, name: &str) -> Vec<UpstreamIndex> {
        let upstreams = self.upstreams.borrow();
        named(name, upstreams.iter().map(|upstream| (upstream.name.as_str(), upstream.zone.as_deref())))
    }

    fn pools(&self, upstream: UpstreamIndex) -> Option<Pools> {
        self.upstreams.borrow().get(upstream.0)?.pools.clone()
    }

    fn spare(&self, _: usize) -> Option<Box<dyn Any>> {
        Some(Box::new(()))
    }

    fn room(&self, _: UpstreamIndex) -> Result<(), OpError> {
        self.no_memory.then_some(OpError::NoMemory).map_or(Ok(()), Err)
    }

    fn snapshot(&self, upstream: UpstreamIndex) -> Result<Snapshot, OpError> {
        self.room(upstream)?;
        let found = self.upstreams.borrow().get(upstream.0).cloned().map(Snapshot::without_placeholder);
        found.ok_or_else(|| OpError::UpstreamNotFound(String::new()))
    }

    fn only(&self, upstream: UpstreamIndex, ids: &[ServerId]) -> Result<Snapshot, OpError> {
        let mut snapshot = self.snapshot(upstream)?;
        snapshot.peers.retain(|peer| peer.id.is_some_and(|id| ids.contains(&id)));
        Ok(snapshot)
    }

    fn lookup(&self, upstream: UpstreamIndex) -> Result<Box<dyn Lookup + '_>, OpError> {
        let snapshot = self.upstreams.borrow()[upstream.0].clone();
        match snapshot.fixed {
            Some(reason) => Err(OpError::Static(reason)),
            None => Ok(Box::new(FakeLookup { snapshot, guard: self.guard })),
        }
    }

    fn commit(&self, upstream: UpstreamIndex, plan: &Plan) -> Result<Committed, CommitError> {
        if let Some(error) = &self.refuse {
            return Err(CommitError::Refused(error.clone()));
        }
        let mut upstreams = self.upstreams.borrow_mut();
        let snapshot = &mut upstreams[upstream.0];
        for entry in &plan.entries {
            let peer = snapshot.peers.iter_mut().find(|peer| peer.id == Some(entry.id)).unwrap();
            peer.down = u64::from(entry.to.admin != Admin::Up);
            peer.terms = entry.to;
            if let Some(address) = &entry.readdress {
                peer.name = address.to_string().into();
                peer.server.clone_from(&peer.name);
            }
            if entry.restates() {
                peer.reason = Some(Reason::Operator {
                    at: NOW,
                    client: plan.client.address.as_str().into(),
                    user: plan.client.user.clone(),
                    note: plan.note.clone(),
                });
            }
        }
        let is_change =
            plan.entries.iter().any(|entry| entry.is_change() || (entry.restates() && plan.note.is_some()));
        if is_change || !plan.added.is_empty() || !plan.removed.is_empty() {
            snapshot.revision.0 += 1;
        }
        let added = plan.added.iter().map(|server| push(snapshot, server)).collect();
        snapshot.peers.retain(|peer| plan.removed.iter().all(|removal| Some(removal.id) != peer.id));
        renumber(snapshot);
        Ok(Committed { revision: snapshot.revision, added, left: snapshot.peers.len() })
    }

    fn whole(&self, upstream: UpstreamIndex) -> Result<Whole, OpError> {
        let snapshot = self.upstreams.borrow()[upstream.0].clone();
        match snapshot.fixed {
            Some(reason) => Err(OpError::Static(reason)),
            None => Ok(Whole {
                name: snapshot.name,
                revision: snapshot.revision,
                membership: 0,
                method: Method::RoundRobin,
                has_backups: snapshot.method != Some(Method::IpHash),
                guard: self.guard,
                peers: snapshot.peers,
            }),
        }
    }

    fn prepare(&self, _: &mut Part, _: usize) -> Result<bool, OpError> {
        Ok(true)
    }

    fn commit_all(&self, parts: &mut [Part]) -> Result<Vec<Committed>, (usize, CommitError)> {
        let all = parts.iter().enumerate();
        all.map(|(at, part)| self.commit(part.upstream, &part.plan).map_err(|error| (at, error))).collect()
    }
}

/// Makes a server the last of its list.
fn push(snapshot: &mut Snapshot, server: &Server) -> ServerId {
    let id = snapshot.peers.iter().filter_map(|peer| peer.id).max().map_or(0, |id| id.0 + 1);
    snapshot.peers.push(Peer {
        id: Some(ServerId(id)),
        slot: Slot { group: server.group, index: usize::MAX },
        name: server.address.to_string().into(),
        terms: server.terms,
        down: u64::from(!server.terms.is_up()),
        ..peer(0, &server.text)
    });
    ServerId(id)
}

/// Gives the peers their places, from 0 in each list.
fn renumber(snapshot: &mut Snapshot) {
    snapshot.peers.sort_by_key(|peer| peer.slot);
    let (mut primary, mut backup) = (0.., 0..);
    for peer in &mut snapshot.peers {
        let places = if peer.is_backup() { &mut backup } else { &mut primary };
        peer.slot.index = places.next().unwrap();
    }
}

/// Look-ups in one upstream.
struct FakeLookup {
    /// The upstream.
    snapshot: Snapshot,
    /// How many must be left.
    guard: Option<Guard>,
}

impl Lookup for FakeLookup {
    fn revision(&self) -> Revision {
        self.snapshot.revision
    }

    fn membership(&self) -> u64 {
        0
    }

    fn method(&self) -> Method {
        Method::RoundRobin
    }

    fn has_backups(&self) -> bool {
        self.snapshot.method != Some(Method::IpHash)
    }

    fn guard(&self) -> Option<Guard> {
        self.guard
    }

    fn usable(&self) -> (usize, usize) {
        let peers = &self.snapshot.peers;
        (peers.iter().filter(|peer| peer.terms.admin == Admin::Up).count(), peers.len())
    }

    fn total_weight(&self) -> u64 {
        self.snapshot.peers.iter().map(|peer| peer.terms.params.weight).sum()
    }

    fn select(&self, selector: &Selector) -> Result<Vec<Peer>, OpError> {
        Ok(self.snapshot.peers.iter().filter(|peer| selector.chooses(peer)).cloned().collect())
    }

    fn place(&self, peers: &mut [Peer]) {
        peers.sort_by_key(|peer| peer.slot);
    }
}

/// A pool of priority 10 times its place.
fn pool(place: u32, name: &str, standing: Standing) -> Pool {
    let failback = Seconds(u64::from(place) * 30);
    // `Fake::new` knows better.
    let upstream = UpstreamIndex(usize::MAX);
    Pool { upstream, name: name.to_owned(), priority: place * 10, failback, standing }
}

/// An upstream of these pools, the first of which is the best.
pub fn composed(name: &str, pools: &[(&str, Standing)]) -> Snapshot {
    let list = (0..).zip(pools).map(|(place, (name, standing))| pool(place, name, *standing)).collect();
    Snapshot {
        zone: None,
        memory: None,
        method: None,
        revision: Revision(0),
        fixed: Some(StaticReason::Pools),
        pools: Some(Pools { list, since: NOW }),
        primary: Totals::default(),
        ..upstream(name, Vec::new())
    }
}

/// `app` with the pools `primary` and `dr`, each of two hosts, `other` with `spare` and `primary`, and `alone`, which is
/// no pool.
pub fn pooled() -> Fake {
    let pool = |name, from: usize| {
        let mut peers =
            vec![peer(0, &format!("127.0.0.1:{from}")), peer(1, &format!("127.0.0.1:{}", from + 1))];
        for peer in &mut peers {
            peer.terms.params.weight = 10;
        }
        upstream(name, peers)
    };
    Fake::new(vec![
        pool("dr", 83),
        pool("primary", 81),
        composed("app", &[("primary", Standing::Active), ("dr", Standing::Standby)]),
        composed("other", &[("spare", Standing::Active), ("primary", Standing::Standby)]),
        upstream("spare", vec![peer(0, "10.0.0.9")]),
        pool("alone", 85),
    ])
}
