//! From a configuration that was read to one that can be controlled.

use std::ptr::NonNull;
use std::sync::atomic::AtomicU64;

use crate::model::snapshot::StaticReason;
use crate::nginx::log::Log;
use crate::nginx::shm::{self, Word};
use crate::store::adopt::{Claim, Claimed, Wishes};
use crate::store::{self, Locked, Store};
use crate::zone::apply::Abilities;
use crate::zone::{self, layout};

use super::catalogue::Live;
use super::upstream::{Control, Upstream};
use super::view::claim;

/// A name that is to be logged when the lock is gone, cut to this length, in bytes.
const NAME_MAX: usize = 64;

/// Names of forgotten upstreams that are logged one by one; more are counted.
const NAMES_MAX: usize = 8;

impl Live {
    /// Takes control of each upstream that can be changed: the last step of a start or a reload.
    ///
    /// `drains` says whether the core knows draining peers. An upstream of which control cannot be taken is static,
    /// with the reason; nothing here fails a configuration.
    ///
    /// # Safety
    ///
    /// Called by the master, in `init_module`, with the zone that was added for this configuration.
    pub unsafe fn start(&self, zone: shm::Zone, drains: bool, log: Option<Log<'_>>) {
        // SAFETY: see above; zones are mapped before `init_module`.
        let Some(store) = (unsafe { Store::open(zone) }) else {
            for upstream in self.iter().filter(|upstream| upstream.fixed().is_none()) {
                upstream.fixed.replace(Some(StaticReason::StoreFull));
            }
            return;
        };
        let generation = store.lock().begin_generation();
        for upstream in self.iter().filter(|upstream| upstream.fixed().is_none()) {
            match control(upstream, store, generation, drains, log) {
                Ok(control) => upstream.control.set(Some(control)),
                Err(reason) => {
                    if let Some(log) = log {
                        log.warn(format_args!("upstream \"{}\" is static: {reason}", upstream.name));
                    }
                    upstream.fixed.replace(Some(reason));
                }
            }
        }
        forget_others(store, generation, log);
    }
}

/// Takes control of one upstream.
fn control(
    upstream: &Upstream,
    store: Store,
    generation: u64,
    drains: bool,
    log: Option<Log<'_>>,
) -> Result<Control, StaticReason> {
    let method = upstream.method.ok_or(StaticReason::UnknownBalancer)?;
    let zone = upstream.peers().ok_or(StaticReason::NoZone)?;
    layout::check(&zone).map_err(StaticReason::Layout)?;
    let pool = zone.pool().ok_or(StaticReason::NoZone)?;
    // SAFETY: the pool is that of the zone, which lives as long as the configuration.
    let applied = unsafe { Word::<AtomicU64>::alloc(pool) }.ok_or(StaticReason::ZoneFull)?;

    let copy = zone.copy();
    let claims: Vec<Claim<'_>> = copy.rows.iter().map(|row| claim(&copy, row)).collect();
    let mut claimed = Claimed::with_room(claims.len());
    let mut locked = store.lock();
    let adopted = adopt(upstream, &mut locked, generation, &copy, &claims, &mut claimed);
    let adopted = adopted.map(|(record, dropped)| (record, dropped, locked.revision(record)));
    drop(locked);

    let (record, dropped, revision) = match adopted {
        Ok(adopted) => adopted,
        Err(store::lock::Full { .. }) => {
            // SAFETY: made above from this pool, and known to nobody else.
            unsafe { Word::free(pool, applied) };
            return Err(StaticReason::StoreFull);
        }
    };
    if dropped > 0
        && let Some(log) = log
    {
        log.notice(format_args!(
            "upstream \"{}\": the reload dropped run-time changes of {dropped} server(s)",
            upstream.name
        ));
    }
    // SAFETY: nobody else knows the word before the workers start.
    unsafe { applied.as_ref() }.store(revision, std::sync::atomic::Ordering::Release);
    // SAFETY: the record is one of this store, and the word lies in the zone of these peers.
    Ok(unsafe { Control::new(store, generation, record, zone, Abilities { method, drains }, applied) })
}

/// Finds or makes the records of an upstream and its servers. Returns how many servers lost run-time changes, too.
fn adopt(
    upstream: &Upstream,
    locked: &mut Locked,
    generation: u64,
    copy: &zone::Copy,
    claims: &[Claim<'_>],
    claimed: &mut Claimed,
) -> Result<(NonNull<store::Upstream>, usize), store::lock::Full> {
    let record = locked.upstream(upstream.name.as_bytes())?;
    let dropped = locked.claim(record, generation, copy.membership, claims, claimed, Wishes::Dropped)?;
    Ok((record, dropped))
}

/// Frees what belonged to upstreams that left the configuration, with a notice for each.
fn forget_others(store: Store, generation: u64, log: Option<Log<'_>>) {
    let mut names = [([0_u8; NAME_MAX], 0_usize); NAMES_MAX];
    let mut count = 0;
    store.lock().forget_others(generation, |name| {
        if let Some((bytes, len)) = names.get_mut(count) {
            for (to, from) in bytes.iter_mut().zip(name) {
                *to = *from;
                *len += 1;
            }
        }
        count += 1;
    });
    let Some(log) = log else { return };
    for (bytes, len) in names.iter().take(count) {
        let name = String::from_utf8_lossy(bytes.get(..*len).unwrap_or_default());
        log.notice(format_args!(
            "upstream \"{name}\" left the configuration, its run-time state is forgotten"
        ));
    }
    if count > NAMES_MAX {
        log.notice(format_args!("{} more upstreams left the configuration", count - NAMES_MAX));
    }
}
