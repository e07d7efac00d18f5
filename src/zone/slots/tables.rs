//! What a worker's balancer computed from the list of peers, for itself, and would never compute again.
//!
//! `random` keeps the running sums of the weights, and `hash .. consistent` a ring of points. nginx before 1.27.3 makes
//! either of them once. Tables that are late cost balance and nothing else: a slot that they name is always a peer, and
//! a server that is on no ring is still found by round robin. But `random` looks in its own for as many peers as the list
//! has by then. So this module makes them, before nginx does, and as long as the list can become.

use std::alloc::{Layout, alloc, dealloc};
use std::cell::Cell;
use std::ffi::c_void;
use std::ptr::{self, NonNull};

use nginx_sys::{ngx_alloc, ngx_cycle, ngx_str_t, ngx_uint_t};

use super::super::copy::Copy;
use super::super::handle::Zone;
use super::super::nginx_peers::{ComplexValue, RawPeer, UpstreamConf};
use super::super::peers::Peer;
use super::blanks::Own;
use super::points;
use crate::model::id::Group;
use crate::model::snapshot::Method;

/// Settings of an upstream with `random`.
#[repr(C)]
struct RandomSettings {
    /// Whether the better of two is chosen.
    two: ngx_uint_t,
    /// A range for each peer of the list, in its order; null in an upstream with a zone until the first request, when the
    /// balancer makes them if nobody did.
    ranges: *mut Range,
}

/// What `random` keeps of a peer.
#[repr(C)]
#[derive(Clone, Copy)]
struct Range {
    /// The peer.
    peer: *mut RawPeer,
    /// Sum of the weights of the peers before it.
    range: ngx_uint_t,
}

/// Settings of an upstream with `hash`.
#[repr(C)]
struct HashSettings {
    /// What is hashed; never read here.
    key: ComplexValue,
    /// The ring; null unless the hash is consistent.
    ring: *mut RingHead,
}

/// The ring, in nginx's form.
#[repr(C)]
struct RingHead {
    /// How many points follow.
    number: ngx_uint_t,
    /// The points, by hash.
    points: [RingPoint; 0],
}

/// A point of the ring, in nginx's form.
#[repr(C)]
#[derive(Clone, Copy)]
struct RingPoint {
    /// Where it is.
    hash: u32,
    /// Text of the servers that stand there.
    server: *const ngx_str_t,
}

/// What a worker's balancer computed from the lists, for itself.
pub struct Tables(Kind);

/// The tables of one method.
enum Kind {
    /// Of `random`.
    Ranges(Ranges),
    /// Of `hash .. consistent`.
    Ring(Ring),
}

impl Tables {
    /// The tables of an upstream; none if its method has none. The error says what is not as the module expects it.
    ///
    /// # Safety
    ///
    /// Called in `postconfiguration`. `settings` is what nginx's module of this method keeps for this upstream, which
    /// has a zone, and whose `peer.data` is the list that the method made. The value is dropped before the pool of the
    /// configuration is freed, at the latest by one of its cleanups.
    ///
    /// # Errors
    ///
    /// Words for [`crate::model::snapshot::StaticReason::Layout`].
    pub unsafe fn of(
        us: NonNull<UpstreamConf>,
        method: Method,
        settings: NonNull<c_void>,
    ) -> Result<Option<Self>, &'static str> {
        match method {
            Method::Random => {
                let settings = settings.cast();
                // SAFETY: see above.
                unsafe { check_random(settings)? };
                Ok(Some(Self(Kind::Ranges(Ranges { settings }))))
            }
            Method::HashConsistent => {
                // SAFETY: see above.
                let zone = unsafe { Zone::of(us) }.ok_or("list of peers")?;
                // SAFETY: likewise.
                let ring = unsafe { Ring::of(&zone, settings.cast())? };
                Ok(Some(Self(Kind::Ring(ring))))
            }
            _ => Ok(None),
        }
    }

    /// The count of changes that they show before they are computed for the first time; none if there are none yet.
    pub fn shown(&self) -> Option<u64> {
        match &self.0 {
            Kind::Ranges(_) => None,
            // nginx made it when it read the configuration.
            Kind::Ring(_) => Some(0),
        }
    }

    /// Whether the balancer would find any.
    pub fn is_usable(&self) -> bool {
        match &self.0 {
            Kind::Ranges(ranges) => !ranges.get().is_null(),
            Kind::Ring(_) => true,
        }
    }

    /// Computes them anew from the peers. Returns the count of changes that they show; none if the locks are stuck or
    /// there is no memory: then they stay as they are.
    ///
    /// # Safety
    ///
    /// Called in a worker, not by the balancer itself. `zone` has the peers of the same upstream.
    pub unsafe fn refresh(&self, zone: &Zone) -> Option<u64> {
        match &self.0 {
            // SAFETY: see above.
            Kind::Ranges(ranges) => unsafe { ranges.write(zone) },
            Kind::Ring(ring) => {
                // What is allocated below is too much to be allocated under the locks.
                let copy = zone.copy()?;
                ring.replace(Block::of(&copy)?);
                Some(copy.membership)
            }
        }
    }
}

/// Whether the settings can be those of `random` in an upstream with a zone, before the first request.
///
/// # Safety
///
/// They are at least two words.
unsafe fn check_random(settings: NonNull<RandomSettings>) -> Result<(), &'static str> {
    // SAFETY: see above.
    let settings = unsafe { settings.as_ref() };
    if settings.two > 1 || !settings.ranges.is_null() { Err("settings of random") } else { Ok(()) }
}

/// The ranges of `random`. They are memory of this module's, or none.
struct Ranges {
    /// Where the balancer looks for them.
    settings: NonNull<RandomSettings>,
}

impl Ranges {
    /// The ranges; null if there are none yet.
    fn get(&self) -> *mut Range {
        // SAFETY: the settings live as long as the configuration, which outlives `self`; one thread runs a worker.
        unsafe { (&raw const (*self.settings.as_ptr()).ranges).read() }
    }

    /// Puts others in their place.
    fn set(&self, ranges: *mut Range) {
        // SAFETY: likewise; the balancer is not at work.
        unsafe { (&raw mut (*self.settings.as_ptr()).ranges).write(ranges) };
    }

    /// Writes all ranges, after they were made if there were none.
    ///
    /// # Safety
    ///
    /// See [`Tables::refresh`].
    unsafe fn write(&self, zone: &Zone) -> Option<u64> {
        let slots = Own::of(zone)?.slots(Group::Primary);
        let present = self.get();
        let ranges = if present.is_null() { Self::make(slots)? } else { present };
        // SAFETY: there are as many ranges as slots, and nobody else uses them.
        let membership = unsafe { Self::fill(ranges, slots, zone) };
        if membership.is_some() {
            self.set(ranges);
        } else if present.is_null() {
            // SAFETY: made above, and known to nobody else.
            unsafe { libc::free(ranges.cast()) };
        }
        membership
    }

    /// Memory for so many ranges, as the balancer would take it. None if there is none, which nginx logs.
    fn make(slots: usize) -> Option<*mut Range> {
        let size = slots.checked_mul(size_of::<Range>())?;
        // SAFETY: the log of the cycle is nginx's own.
        let ranges: *mut Range = unsafe { ngx_alloc(size, (*ngx_cycle).log) }.cast();
        (!ranges.is_null()).then_some(ranges)
    }

    /// Writes a range for each peer. Those that are left, for peers that may come before they are written again, begin
    /// where no sum of weights ends, so that the balancer finds none of them; it could do no harm there either.
    ///
    /// # Safety
    ///
    /// `ranges` has so many places, at least as many as the list of the zone's primaries can have peers.
    unsafe fn fill(ranges: *mut Range, slots: usize, zone: &Zone) -> Option<u64> {
        let lists = zone.read()?;
        let (mut at, mut sum) = (0, 0_usize);
        let peers = || lists.peers(lists.primary()).take(slots);
        let first = peers().next()?.raw().as_ptr();
        // SAFETY: there are as many places, see above.
        let write = |at: usize, peer, range| unsafe { ranges.add(at).write(Range { peer, range }) };
        for peer in peers() {
            write(at, peer.raw().as_ptr(), sum);
            sum = sum.wrapping_add(peer.weight() as usize);
            at += 1;
        }
        // A list is never empty, and its peers are slots, which are never freed.
        (at..slots).for_each(|at| write(at, first, usize::MAX));
        // Counts move under the write locks, so this one is that of the list which was read.
        let membership = zone.membership();
        drop(lists);
        Some(membership)
    }
}

impl Drop for Ranges {
    fn drop(&mut self) {
        // SAFETY: `make` took them; no request is served any more.
        unsafe { libc::free(self.get().cast()) };
        self.set(ptr::null_mut());
    }
}

/// The ring of `hash .. consistent`.
struct Ring {
    /// Where the balancer looks for it.
    settings: NonNull<HashSettings>,
    /// The one that nginx made, in the configuration's pool.
    configured: *mut RingHead,
    /// The one of ours, if it is in use.
    own: Cell<Option<Block>>,
}

impl Ring {
    /// The ring that nginx made of the list of the configuration.
    ///
    /// # Safety
    ///
    /// See [`Tables::of`].
    unsafe fn of(zone: &Zone, settings: NonNull<HashSettings>) -> Result<Self, &'static str> {
        // SAFETY: see above. Settings of `hash` are as long as the structure in any nginx that could be meant.
        let configured = unsafe { (&raw const (*settings.as_ptr()).ring).read() };
        let head = NonNull::new(configured).filter(|head| head.is_aligned()).ok_or("settings of hash")?;
        // SAFETY: nobody else uses the list while the configuration is read. The ring is walked only as far as it is
        // like one of this list.
        unsafe { check_ring(zone, head)? };
        Ok(Self { settings, configured, own: Cell::new(None) })
    }

    /// Puts another in the place of the present one. The balancer keeps positions on the ring from one step of a request
    /// to the next, but no pointers.
    fn replace(&self, block: Block) {
        // SAFETY: the settings live as long as the configuration, which outlives `self`; one thread runs a worker, and
        // the balancer is not at work.
        unsafe { (&raw mut (*self.settings.as_ptr()).ring).write(block.start.cast().as_ptr()) };
        // Only now is the old one freed.
        drop(self.own.replace(Some(block)));
    }
}

impl Drop for Ring {
    fn drop(&mut self) {
        // SAFETY: the configuration's pool, with the settings and the first ring, is freed after this. No request is
        // served any more.
        unsafe { (&raw mut (*self.settings.as_ptr()).ring).write(self.configured) };
    }
}

/// Compares a ring with the list that it was made of.
///
/// # Safety
///
/// The words of the ring can be read as far as they are plausible.
unsafe fn check_ring(zone: &Zone, head: NonNull<RingHead>) -> Result<(), &'static str> {
    let lists = zone.read().ok_or("lock of the peers")?;
    let primary = lists.primary();
    // SAFETY: the lock is held; only addresses are taken.
    let text = |peer: Peer<'_>| unsafe { (&raw const (*peer.raw().as_ptr()).server).cast::<ngx_str_t>() };
    let mut servers: Vec<_> = lists.peers(primary).take(primary.number()).map(text).collect();
    servers.sort_unstable();
    // SAFETY: see above.
    let number = unsafe { (*head.as_ptr()).number };
    if number == 0 || number > primary.total_weight().saturating_mul(points::PER_WEIGHT) {
        return Err("number of points of hash");
    }
    let mut before = None;
    for at in 0..number {
        // SAFETY: see above; the points follow the head.
        let point = unsafe { (&raw const (*head.as_ptr()).points).cast::<RingPoint>().add(at).read() };
        if servers.binary_search(&point.server).is_err() {
            return Err("server of a point of hash");
        }
        if before >= Some(point.hash) {
            return Err("order of the points of hash");
        }
        before = Some(point.hash);
    }
    Ok(())
}

/// A ring of ours, with the texts of its servers: those of the peers may change before it does. It is one piece of
/// memory: head, points, strings, texts.
struct Block {
    /// Its start, a [`RingHead`].
    start: NonNull<u8>,
    /// Its size.
    layout: Layout,
}

impl Block {
    /// The ring of the primaries. None if there is no memory.
    fn of(copy: &Copy) -> Option<Self> {
        let servers = copy
            .rows
            .iter()
            .filter(|row| row.slot.group == Group::Primary)
            .map(|row| (copy.bytes(&row.server), row.params.weight));
        let ring = points::ring(servers.clone())?;
        // A ring without servers names one past the last, whose text no peer has that is up.
        let texts = servers.map(|(server, _)| server).chain([&[][..]]);

        let bytes = texts.clone().map(<[u8]>::len).fold(0, usize::saturating_add);
        let (layout, points_at) =
            Layout::new::<RingHead>().extend(Layout::array::<RingPoint>(ring.len()).ok()?).ok()?;
        let (layout, strings_at) =
            layout.extend(Layout::array::<ngx_str_t>(texts.clone().count()).ok()?).ok()?;
        let (layout, bytes_at) = layout.extend(Layout::array::<u8>(bytes).ok()?).ok()?;
        // SAFETY: the layout has the head, at least.
        let block = Self { start: NonNull::new(unsafe { alloc(layout) })?, layout };
        // SAFETY: each part lies in the block where its layout says, has as many places as are written, and nobody else
        // knows the block. A point's server is one of the texts.
        unsafe {
            let start = block.start.as_ptr();
            let strings: *mut ngx_str_t = start.add(strings_at).cast();
            let mut data = start.add(bytes_at);
            for (at, text) in texts.enumerate() {
                data.copy_from_nonoverlapping(text.as_ptr(), text.len());
                strings.add(at).write(ngx_str_t { len: text.len(), data });
                data = data.add(text.len());
            }
            let points: *mut RingPoint = start.add(points_at).cast();
            for (at, point) in ring.iter().enumerate() {
                points.add(at).write(RingPoint { hash: point.hash(), server: strings.add(point.server()) });
            }
            start.cast::<RingHead>().write(RingHead { number: ring.len(), points: [] });
        }
        Some(block)
    }
}

impl Drop for Block {
    fn drop(&mut self) {
        // SAFETY: `of` allocated it with this layout, and no settings point to it any more.
        unsafe { dealloc(self.start.as_ptr(), self.layout) };
    }
}

#[cfg(test)]
#[cfg(feature = "nginx-objs")]
mod tests;
