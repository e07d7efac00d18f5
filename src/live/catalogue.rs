//! All upstreams of the running configuration, as the rules see them.

use std::any::Any;
use std::cell::{Cell, OnceCell};
use std::collections::BTreeMap;
use std::rc::Rc;

use crate::model::id::{ServerId, UpstreamIndex};
use crate::model::pools as model;
use crate::model::snapshot::{Method, Snapshot, StaticReason};
use crate::model::time::Seconds;
use crate::nginx::{memory, process, upstream as nginx};
use crate::ops::job::{JobKind, Upkeep};
use crate::ops::lease::Candidate;
use crate::ops::{CommitError, Committed, Guard, Lookup, OpError, Part, Plan, Upstreams, Whole, named};
use crate::store::{AT_ONCE, Store};

use super::change::{self, Made, Task};
use super::lookup::{look_up, only};
use super::pools::{Member, Pools};
use super::room;
use super::upstream::{Control, Upstream};
use super::view::{View, empty};

/// All upstreams of a configuration. It is made while the configuration is read, and lives in its pool.
#[derive(Default)]
pub struct Live {
    /// In configuration order.
    upstreams: Vec<Rc<Upstream>>,
    /// The pools of the upstreams that have them in the place of servers, by the place of the upstream.
    pools: BTreeMap<usize, Rc<Pools>>,
    /// The module's zone, and the number of the configuration there, once the master has started it.
    pub(super) started: OnceCell<(Store, u64)>,
}

impl Live {
    /// Adds an upstream: with the method of its balancer, if that is known, and the reason why it cannot be changed, if
    /// there is one already. Returns it.
    pub fn add(
        &mut self,
        conf: nginx::Upstream,
        method: Option<Method>,
        fixed: Option<StaticReason>,
        guard: Option<Guard>,
    ) -> Option<&Upstream> {
        let (name, zone) = (conf.name(), conf.zone());
        self.upstreams.push(Rc::new(Upstream {
            name,
            zone,
            conf,
            method,
            guard,
            is_pool: Cell::new(false),
            slots: Cell::default(),
            fixed: fixed.into(),
            control: OnceCell::new(),
        }));
        self.upstreams.last().map(Rc::as_ref)
    }

    /// Gives the upstream at a place its pools, each with its priority and its failback.
    pub fn compose(&mut self, place: usize, pools: &[(usize, u32, Seconds)]) {
        let Some(upstream) = self.upstreams.get(place) else { return };
        let members = pools.iter().filter_map(|&(place, priority, failback)| {
            let pool = self.upstreams.get(place)?;
            pool.is_pool.set(true);
            Some(Member::new(UpstreamIndex(place), Rc::clone(pool), priority, failback))
        });
        let pools = Pools::new(upstream.name.clone(), members.collect());
        self.pools.insert(place, Rc::new(pools));
    }

    /// The pools of the upstream at a place; `None` if it has none.
    pub fn pools_at(&self, place: usize) -> Option<&Rc<Pools>> {
        self.pools.get(&place)
    }

    /// All pools.
    pub(super) fn all_pools(&self) -> impl Iterator<Item = &Pools> {
        self.pools.values().map(Rc::as_ref)
    }

    /// All upstreams, in configuration order.
    pub fn iter(&self) -> impl Iterator<Item = &Rc<Upstream>> {
        self.upstreams.iter()
    }

    /// Whether any upstream may be changed at run time.
    pub fn any_changeable(&self) -> bool {
        self.iter().any(|upstream| upstream.fixed().is_none())
    }

    /// One upstream.
    fn get(&self, upstream: UpstreamIndex) -> Option<&Upstream> {
        self.upstreams.get(upstream.0).map(Rc::as_ref)
    }

    /// One upstream, which must be there.
    fn known(&self, upstream: UpstreamIndex) -> Result<&Upstream, OpError> {
        self.get(upstream).ok_or_else(|| OpError::UpstreamNotFound(String::new()))
    }

    /// One upstream that can be changed, and what it is controlled through.
    fn changeable(&self, upstream: UpstreamIndex) -> Result<(&Upstream, &Control), OpError> {
        let upstream = self.known(upstream)?;
        let reason = || upstream.fixed().unwrap_or(StaticReason::StoreFull);
        upstream.control().map(|control| (upstream, control)).ok_or_else(|| OpError::Static(reason()))
    }
}

impl Upkeep for Live {
    fn count(&self) -> usize {
        self.upstreams.len()
    }

    fn reap(&self, upstream: UpstreamIndex) {
        if let Some(control) = self.get(upstream).and_then(Upstream::control) {
            // Without the lock the next round does it.
            control.reap(AT_ONCE);
        }
    }

    fn may_do(&self, kind: JobKind, now: u64, period: u64) -> bool {
        self.started.get().is_some_and(|(store, generation)| {
            let candidate = Candidate { pid: process::pid(), generation: *generation };
            store.lease(kind).is_some_and(|lease| lease.hold(candidate, now, period, process::is_alive))
        })
    }
}

impl Upstreams for Live {
    fn count(&self) -> usize {
        self.upstreams.len()
    }

    fn named(&self, name: &str) -> Vec<UpstreamIndex> {
        named(name, self.upstreams.iter().map(|upstream| (upstream.name.as_str(), upstream.zone.as_deref())))
    }

    fn pools(&self, upstream: UpstreamIndex) -> Option<model::Pools> {
        self.pools_at(upstream.0).map(|pools| pools.observe())
    }

    fn spare(&self, bytes: usize) -> Option<Box<dyn Any>> {
        Some(Box::new(memory::spare(bytes)?))
    }

    fn room(&self, upstream: UpstreamIndex) -> Result<(), OpError> {
        match self.get(upstream).and_then(Upstream::control) {
            Some(control) => room::to_look_and_tell(&control.zone).map(drop),
            None => Ok(()),
        }
    }

    fn snapshot(&self, upstream: UpstreamIndex) -> Result<Snapshot, OpError> {
        let known = self.known(upstream)?;
        match self.pools(upstream) {
            // It has no servers of its own.
            Some(pools) => Ok(Snapshot { pools: Some(pools), ..empty(known) }),
            None => View::snapshot(known).map(Snapshot::without_placeholder),
        }
    }

    fn only(&self, upstream: UpstreamIndex, ids: &[ServerId]) -> Result<Snapshot, OpError> {
        let known = self.known(upstream)?;
        match known.control() {
            Some(control) => only(known, control, ids),
            None => Ok(Snapshot { peers: Vec::new(), ..Upstreams::snapshot(self, upstream)? }),
        }
    }

    fn lookup(&self, upstream: UpstreamIndex) -> Result<Box<dyn Lookup + '_>, OpError> {
        let (upstream, control) = self.changeable(upstream)?;
        look_up(upstream, control)
    }

    fn commit(&self, upstream: UpstreamIndex, plan: &Plan) -> Result<Committed, CommitError> {
        let upstream = self.get(upstream).ok_or(CommitError::Moved)?;
        let control = upstream.control().ok_or(CommitError::Moved)?;
        change::commit(upstream, control, plan)
    }

    fn whole(&self, upstream: UpstreamIndex) -> Result<Whole, OpError> {
        let (upstream, control) = self.changeable(upstream)?;
        if !control.is_newest(&mut control.lock()?) {
            // The list is meant for the servers of the new configuration. By the next attempt a worker of that answers.
            return Err(OpError::Reloaded);
        }
        let _room = room::to_look(&control.zone)?;
        match View::look(upstream, control)? {
            (view, true) => Ok(view.into_whole()),
            (_, false) => Err(OpError::Busy),
        }
    }

    fn prepare(&self, part: &mut Part, limit: usize) -> Result<bool, OpError> {
        let (upstream, control) = self.changeable(part.upstream)?;
        change::prepare(upstream, control, part, limit)
    }

    fn commit_all(&self, parts: &mut [Part]) -> Result<Vec<Committed>, (usize, CommitError)> {
        let changes = parts.iter().map(|part| part.plan.len()).sum();
        let _room = room::to_change(changes).map_err(|error| (0, CommitError::Refused(error)))?;
        let mut tasks = Vec::with_capacity(parts.len());
        for (at, Part { upstream, plan, ready }) in parts.iter_mut().enumerate() {
            let changeable = self.changeable(*upstream).map_err(|error| (at, CommitError::Refused(error)));
            let made = ready.as_mut().and_then(|ready| ready.downcast_mut::<Made>());
            let ((upstream, control), made) = (changeable?, made.ok_or((at, CommitError::Moved))?);
            tasks.push(Task::new(upstream, control, plan, made));
        }
        change::commit_all(tasks)
    }
}
