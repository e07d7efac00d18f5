//! From a configuration that was read to one that can be controlled.

use std::cell::Cell;
use std::fmt::Display;
use std::ptr::NonNull;
use std::sync::atomic::Ordering;
use std::time::Duration;

use crate::model::log::Level;
use crate::model::snapshot::StaticReason;
use crate::nginx::log::Log;
use crate::nginx::shm::{self, Word};
use crate::store::adopt::{Claim, Claimed, Wishes};
use crate::store::lost::{Losses, Name, TOLD};
use crate::store::{self, Locked, Store};
use crate::zone::backend::Backend;
use crate::zone::setting::Abilities;
use crate::zone::{self, Extra, layout};

use super::catalogue::Live;
use super::upstream::{Control, Upstream};
use super::view::claim;

/// How long a start waits for the lock of the module's zone.
const PATIENCE: Duration = Duration::from_secs(3);

/// Forgotten upstreams that are logged one by one; more are counted.
const UPSTREAMS_MAX: usize = 8;

impl Live {
    /// Takes control of each upstream that can be changed: the last step of a start or a reload.
    ///
    /// `drains` says whether the core knows draining peers. An upstream of which control cannot be taken is static,
    /// with the reason; nothing here fails a configuration.
    ///
    /// # Safety
    ///
    /// Called by the master, in `init_module`, with the zone that was added for this configuration, and the one of the
    /// configuration before.
    pub unsafe fn start(&self, zone: shm::Zone, old: Option<shm::Zone>, drains: bool, log: Option<Log<'_>>) {
        // SAFETY: see above; zones are mapped before `init_module`.
        let store = unsafe { Store::open(zone) }.ok_or(StaticReason::StoreFull);
        if let Some(old) = old.filter(|old| !shm::is_same(*old, zone))
            && let Ok(store) = &store
        {
            // SAFETY: the zone of the configuration that runs until now is still mapped.
            unsafe { take_over(store, zone, old, log) };
        }
        let started = store.and_then(|store| {
            // A worker that waits for a lock that died with another may hold this one: the master must go on.
            let mut locked = store.lock_within(PATIENCE).map_err(|_| StaticReason::StoreLocked)?;
            Ok((store, locked.begin_generation()))
        });
        let (store, generation) = match started {
            Ok(started) => started,
            Err(reason) => {
                for upstream in self.iter().filter(|upstream| upstream.fixed().is_none()) {
                    upstream.fixed.replace(Some(reason.clone()));
                }
                if let Some(log) = log {
                    log.write(Level::Error, format_args!("no upstream can be changed at run time: {reason}"));
                }
                return;
            }
        };
        self.started.get_or_init(|| (store, generation));
        for upstream in self.iter().filter(|upstream| upstream.fixed().is_none()) {
            match control(upstream, store, generation, drains, log) {
                // Set once: the master starts a configuration once.
                Ok(control) => drop(upstream.control.set(control)),
                Err(reason) => {
                    if let Some(log) = log {
                        log.warn(format_args!("upstream \"{}\" is static: {reason}", upstream.name));
                    }
                    upstream.fixed.replace(Some(reason));
                }
            }
        }
        self.forget_others(store, generation, log);
        check_room(store, log);
        for pools in self.all_pools() {
            // SAFETY: this is the master, in `init_module`.
            unsafe { pools.start() };
        }
    }

    /// Frees what belonged to upstreams that left the configuration, or cannot be changed any more, with a line for
    /// each.
    fn forget_others(&self, store: Store, generation: u64, log: Option<Log<'_>>) {
        let mut gone = [const { None }; UPSTREAMS_MAX];
        let mut count = 0;
        let Ok(mut locked) = store.lock_within(PATIENCE) else { return };
        locked.forget_others(generation, |name, losses| {
            if let Some(place) = gone.get_mut(count) {
                *place = Some((Name::new(name), losses.count()));
            }
            count += 1;
        });
        drop(locked);
        let Some(log) = log else { return };
        for (name, changed) in gone.iter().flatten() {
            let name = name.text();
            let is_there = self.iter().any(|upstream| upstream.name == name);
            let what = if is_there { "cannot be changed any more" } else { "left the configuration" };
            let level = if *changed > 0 { Level::Warn } else { Level::Notice };
            log.write(level, format_args!("upstream \"{name}\" {what}, its run-time state is forgotten"));
        }
        if count > UPSTREAMS_MAX {
            log.notice(format_args!("{} more upstreams left the configuration", count - UPSTREAMS_MAX));
        }
    }
}

/// Goes on in a zone of another size with what the one before has, and closes that: workers of the configuration before
/// refuse changes from now on, since nobody would see them.
///
/// # Safety
///
/// Both zones are mapped.
unsafe fn take_over(store: &Store, zone: shm::Zone, old: shm::Zone, log: Option<Log<'_>>) {
    // SAFETY: see above.
    let before = unsafe { Store::open(old) }.and_then(|store| store.lock_within(PATIENCE).ok());
    let taken = match (before, store.lock_within(PATIENCE)) {
        (Some(mut before), Ok(mut locked)) => {
            let taken = locked.inherit(&mut before).is_ok();
            before.close();
            taken
        }
        _ => false,
    };
    if let Some(log) = log {
        let (from, to) = (shm::size(old), shm::size(zone));
        log.notice(format_args!(
            "the module's zone has {to} bytes now and had {from}: workers that shut down take no changes any more"
        ));
        if !taken {
            log.warn("the module's zone could not be taken over whole: ids and revisions may begin anew");
        }
    }
}

/// Warns of a zone in which not all servers can be taken down.
fn check_room(store: Store, log: Option<Log<'_>>) {
    let Ok(mut locked) = store.lock_within(PATIENCE) else { return };
    let (servers, room) = locked.room_for_reasons();
    drop(locked);
    if let Some(log) = log.filter(|_| room < servers) {
        log.warn(format_args!(
            "the module's zone has room to take down {room} of {servers} server(s): raise \"upstream_control_zone\""
        ));
    }
}

/// Closes a store that the new configuration does not go on with, because its size changed or no upstream can be changed
/// any more: workers of the old one refuse changes from now on, since nobody would see them.
///
/// # Safety
///
/// Called by the master, in `init_module`; the zone is mapped.
pub unsafe fn close(zone: shm::Zone, log: Option<Log<'_>>) {
    let mut losses = Losses::default();
    // SAFETY: see above.
    if let Some(mut locked) = unsafe { Store::open(zone) }.and_then(|store| store.lock_within(PATIENCE).ok())
    {
        locked.all_lost(&mut losses);
        locked.close();
    }
    tell(&losses, &"all upstreams", log);
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
    let zone = upstream.peers().ok_or(StaticReason::Layout("lists of peers"))?;
    layout::check(&zone).map_err(StaticReason::Layout)?;
    let pool = zone.pool().ok_or(StaticReason::Layout("zone"))?;
    // SAFETY: the pool is that of the zone, which lives as long as the configuration.
    let extra = unsafe { Word::<Extra>::alloc(pool) }.ok_or(StaticReason::ZoneFull)?;

    let copy = zone.copy().ok_or(StaticReason::Stuck)?;
    let claims: Vec<Claim<'_>> = copy.rows.iter().map(|row| claim(&copy, row)).collect();
    let mut claimed = Claimed::with_room(claims.len());
    let mut locked = store.lock_within(PATIENCE).map_err(|_| StaticReason::StoreLocked)?;
    let adopted = adopt(upstream, &mut locked, generation, &copy, &claims, &mut claimed);
    let adopted = adopted.map(|record| (record, locked.revision(record), locked.departures(record)));
    drop(locked);

    let (record, revision, departures) = match adopted {
        Ok(adopted) => adopted,
        Err(store::Full { .. }) => {
            // SAFETY: made above from this pool, and known to nobody else.
            unsafe { Word::free(pool, extra) };
            return Err(StaticReason::StoreFull);
        }
    };
    tell(claimed.losses(), &format_args!("upstream \"{}\"", upstream.name), log);
    // SAFETY: the words lie in the zone of these peers, and nobody else knows them before the workers start.
    let zone = unsafe {
        extra.as_ref().seen.set(departures);
        extra.as_ref().applied.store(revision, Ordering::Release);
        zone.with_extra(extra)
    };
    // SAFETY: this is the master, in `init_module`.
    let is_whole = unsafe {
        let is_whole = zone::Current::begin(&zone, upstream.slots.get());
        if upstream.is_pool.get() {
            zone.begin_as_pool();
        }
        is_whole
    };
    if !is_whole && let Some(log) = log {
        log.notice(format_args!(
            "zone \"{}\" of upstream \"{}\" is full: fewer servers can be added than there was to be room for, raise the \
             size of \"zone\"",
            upstream.zone.as_deref().unwrap_or_default(),
            upstream.name
        ));
    }
    let abilities = Abilities { method, drains };
    let has_backups = upstream.conf.has_backups();
    let (is_old, followed) = (Cell::new(false), Cell::new(0));
    Ok(Control { store, generation, record, zone, abilities, has_backups, extra, is_old, followed })
}

/// Says which servers lost what was changed at run time: the first of them by name, and how many more there are.
fn tell(losses: &Losses, of: &dyn Display, log: Option<Log<'_>>) {
    let Some(log) = log else { return };
    losses.told().for_each(|lost| log.warn(lost));
    match losses.count().saturating_sub(TOLD) {
        0 => {}
        more => {
            let servers = if more == 1 { "server" } else { "servers" };
            log.warn(format_args!("{of}: the reload dropped run-time changes of {more} more {servers}"));
        }
    }
}

/// Finds or makes the records of an upstream and its servers.
fn adopt(
    upstream: &Upstream,
    locked: &mut Locked,
    generation: u64,
    copy: &zone::Copy,
    claims: &[Claim<'_>],
    claimed: &mut Claimed,
) -> Result<NonNull<store::Upstream>, store::Full> {
    let record = locked.upstream(upstream.name.as_bytes())?;
    locked.claim(record, generation, copy.membership, claims, claimed, Wishes::Dropped)?;
    Ok(record)
}
