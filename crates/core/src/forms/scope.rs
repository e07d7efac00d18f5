//! The upstreams that a location knows: all, or one and its pools, as `upstream_control upstream=NAME` says.

use std::any::Any;

use crate::model::id::{ServerId, UpstreamIndex};
use crate::model::pools::Pools;
use crate::model::snapshot::Snapshot;
use crate::ops::{CommitError, Committed, Lookup, OpError, Part, Plan, Upstreams, Whole};

/// The upstreams of the http block, of which a location may know only some. What it does not know is not there: not by
/// its name, and not among all.
pub struct Scope<'a> {
    /// All of them.
    all: &'a dyn Upstreams,
    /// Those that are known; none if all are.
    known: Option<Vec<UpstreamIndex>>,
}

impl<'a> Scope<'a> {
    /// The upstream of this name and its pools; all without a name.
    pub fn new(all: &'a dyn Upstreams, name: Option<&str>) -> Self {
        Self { all, known: name.map(|name| one_and_its_pools(all, name)) }
    }

    /// The same upstream, if it is known.
    fn known(&self, upstream: UpstreamIndex) -> Option<UpstreamIndex> {
        let is_known = self.known.as_ref().is_none_or(|known| known.contains(&upstream));
        is_known.then_some(upstream)
    }

    /// The same, or an error.
    fn known_or_error(&self, upstream: UpstreamIndex) -> Result<UpstreamIndex, OpError> {
        self.known(upstream).ok_or_else(|| OpError::UpstreamNotFound(String::new()))
    }
}

/// The upstream of this name, and its pools.
fn one_and_its_pools(all: &dyn Upstreams, name: &str) -> Vec<UpstreamIndex> {
    let Ok(upstream) = all.find(name) else {
        return Vec::new();
    };
    let pools = all.pools(upstream).map(|pools| pools.list).unwrap_or_default();
    std::iter::once(upstream).chain(pools.iter().map(|pool| pool.upstream)).collect()
}

impl Upstreams for Scope<'_> {
    fn count(&self) -> usize {
        self.all.count()
    }

    fn named(&self, name: &str) -> Vec<UpstreamIndex> {
        self.all.named(name).into_iter().filter_map(|upstream| self.known(upstream)).collect()
    }

    fn pools(&self, upstream: UpstreamIndex) -> Option<Pools> {
        let mut pools = self.all.pools(upstream)?;
        if self.known(upstream).is_none() {
            // Who knows one upstream only may know that it is a pool.
            let is_alone = self.known.as_ref().is_some_and(|known| known.len() == 1);
            pools.list.retain(|pool| is_alone && self.known(pool.upstream).is_some());
        }
        (!pools.list.is_empty()).then_some(pools)
    }

    fn spare(&self, bytes: usize) -> Option<Box<dyn Any>> {
        self.all.spare(bytes)
    }

    fn room(&self, upstream: UpstreamIndex) -> Result<(), OpError> {
        self.all.room(self.known_or_error(upstream)?)
    }

    fn snapshot(&self, upstream: UpstreamIndex) -> Result<Snapshot, OpError> {
        self.all.snapshot(self.known_or_error(upstream)?)
    }

    fn only(&self, upstream: UpstreamIndex, ids: &[ServerId]) -> Result<Snapshot, OpError> {
        self.all.only(self.known_or_error(upstream)?, ids)
    }

    fn lookup(&self, upstream: UpstreamIndex) -> Result<Box<dyn Lookup + '_>, OpError> {
        self.all.lookup(self.known_or_error(upstream)?)
    }

    fn commit(&self, upstream: UpstreamIndex, plan: &Plan) -> Result<Committed, CommitError> {
        self.all.commit(self.known_or_error(upstream).map_err(CommitError::Refused)?, plan)
    }

    fn whole(&self, upstream: UpstreamIndex) -> Result<Whole, OpError> {
        self.all.whole(self.known_or_error(upstream)?)
    }

    fn prepare(&self, part: &mut Part, limit: usize) -> Result<bool, OpError> {
        self.known_or_error(part.upstream)?;
        self.all.prepare(part, limit)
    }

    fn commit_all(&self, parts: &mut [Part]) -> Result<Vec<Committed>, (usize, CommitError)> {
        for (at, part) in parts.iter().enumerate() {
            self.known_or_error(part.upstream).map_err(|error| (at, CommitError::Refused(error)))?;
        }
        self.all.commit_all(parts)
    }
}

#[cfg(test)]
mod tests {
    use super::super::fake;
    use super::*;

    /// The names that are found, and the names of all that can be looked at.
    fn seen(name: Option<&str>) -> (Vec<&'static str>, Vec<String>) {
        let all = fake::pooled();
        let scope = Scope::new(&all, name);
        let found = ["app", "other", "primary", "dr", "spare", "alone", "alone_zone", "nope"];
        let found = found.into_iter().filter(|name| scope.find(name).is_ok()).collect();
        let indexes = || (0..scope.count()).map(UpstreamIndex);
        let looked = indexes().filter_map(|index| scope.snapshot(index).ok()).map(|it| it.name).collect();
        for index in indexes() {
            let is_known = scope.snapshot(index).is_ok();
            assert_eq!(scope.only(index, &[]).is_ok(), is_known);
            let pools = scope.pools(index).map(|pools| pools.list).unwrap_or_default();
            assert!(pools.iter().all(|pool| scope.find(&pool.name).is_ok()));
            for refused in [scope.lookup(index).err(), scope.whole(index).err()] {
                let is_hidden = matches!(refused, Some(OpError::UpstreamNotFound(_)));
                assert_eq!(is_hidden, !is_known, "{index:?}");
            }
        }
        (found, looked)
    }

    #[test]
    fn one_upstream_and_its_pools() {
        let names = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
        let all = ["dr", "primary", "app", "other", "spare", "alone"];
        assert_eq!(
            seen(None),
            (vec!["app", "other", "primary", "dr", "spare", "alone", "alone_zone"], names(&all))
        );
        assert_eq!(seen(Some("app")), (vec!["app", "primary", "dr"], names(&["dr", "primary", "app"])));
        assert_eq!(seen(Some("alone")), (vec!["alone", "alone_zone"], names(&["alone"])));
        assert_eq!(seen(Some("nope")), (vec![], names(&[])));
    }
}
