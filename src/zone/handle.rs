//! The peers of one upstream, and what the module keeps beside them.

use std::ptr::NonNull;
use std::sync::atomic::Ordering;

use nginx_sys::{ngx_pagesize, ngx_slab_pool_t};

use crate::model::snapshot::Memory;

use super::extra::ExtraPtr;
use super::nginx_peers::{RawPeers, UpstreamConf};
use super::peers::List;

/// The peers of one upstream: primaries, and backups where there are any.
///
/// In a `zone` they are in memory that all workers share; without one they are this worker's own, nginx's locks do
/// nothing, and only this thread reads them.
#[derive(Clone, Copy, Debug)]
pub struct Zone {
    /// The primaries; `next` leads to the backups.
    primary: NonNull<RawPeers>,
    /// The module's words in the zone; none while the upstream is only read.
    extra: Option<ExtraPtr>,
}

impl Zone {
    /// The peers of an upstream.
    ///
    /// # Safety
    ///
    /// `us` is an upstream of the running configuration, one of nginx's own balancers set it up (so that `peer.data`
    /// is a list of round robin peers), and its zone, if it has one, is initialized.
    pub unsafe fn of(us: NonNull<UpstreamConf>) -> Option<Self> {
        // SAFETY: see above; `peer.data` is written once, by the zone's init.
        NonNull::new(unsafe { (*us.as_ptr()).peer.data }.cast()).map(|primary| Self { primary, extra: None })
    }

    /// The same peers, with the module's words in their zone.
    ///
    /// # Safety
    ///
    /// The words lie in the zone of these peers, and there are no others.
    pub unsafe fn with_extra(self, extra: ExtraPtr) -> Self {
        Self { extra: Some(extra), ..self }
    }

    /// The module's words in the zone.
    pub fn extra(&self) -> Option<ExtraPtr> {
        self.extra
    }

    /// The primaries. Lists are mapped as long as their upstream, and those of backups are never freed.
    #[inline]
    pub(super) fn primary(&self) -> List<'_> {
        // SAFETY: see `of`.
        unsafe { List::new(self.primary) }
    }

    /// The slab pool of the zone; none where there is no zone.
    #[inline]
    pub fn pool(&self) -> Option<NonNull<ngx_slab_pool_t>> {
        self.primary().pool()
    }

    /// Memory of the zone; none where there is no zone.
    pub fn memory(&self) -> Option<Memory> {
        let pool = self.pool()?.as_ptr();
        // SAFETY: the pool is mapped as long as the zone. `start` and `end` never change after the start; `pfree` is a
        // word that other workers write, so it is read once and may be one allocation old.
        unsafe {
            let page = (&raw const ngx_pagesize).read();
            let bytes = ((*pool).end as usize).saturating_sub((*pool).start as usize);
            Some(Memory {
                size: ((*pool).end as usize).saturating_sub(pool as usize) as u64,
                page: page as u64,
                pages_total: bytes.checked_div(page).unwrap_or(0) as u64,
                pages_free: (&raw const (*pool).pfree).read_volatile() as u64,
            })
        }
    }

    /// Whether requests that find no peer here are handed to another pool.
    fn has_fallback(&self) -> bool {
        // SAFETY: the words lie in the zone.
        self.extra().is_some_and(|extra| unsafe { extra.as_ref() }.has_fallback.load(Ordering::Relaxed))
    }

    /// Whether so many servers are one that nginx has no choice but to try.
    pub(super) fn is_single(&self, primaries: usize, backups: usize) -> bool {
        primaries == 1 && backups == 0 && !self.has_fallback()
    }
}
