//! Upstream servers of nginx, controlled at run time.
//!
//! The crate's root is the module's table and hooks: it owns the settings that nginx keeps for the module, and calls
//! down. docs/architecture.md shows the rooms.

mod balancer;
mod directives;
mod handlers;
mod jobs;
mod live;
mod nginx;
mod store;
mod zone;

use std::ffi::{c_char, c_void};
use std::mem::offset_of;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::ptr::{self, NonNull};
use std::rc::Rc;

use upstream_control_core::{forms, http, model, ops};

use nginx_sys::{
    NGX_ERROR, NGX_HTTP_MODULE, NGX_OK, ngx_command_t, ngx_conf_t, ngx_cycle_t, ngx_http_module_t, ngx_int_t,
    ngx_module_t, ngx_uint_t,
};

use crate::balancer::{Balancers, Composed, Hook, Look, Seat, add_variables};
use crate::directives::{HttpSettings, Offsets, PoolCandidate, UpstreamSettings};
use crate::live::Live;
use crate::model::snapshot::StaticReason;
use crate::nginx::log::Log;
use crate::nginx::{conf, process, shm, upstream};
use crate::store::records::MAGIC;
use crate::store::size::Need;
use crate::zone::capacity::{self, Candidate};

/// Settings of the http block.
#[repr(C)]
#[derive(Default)]
struct MainConf {
    /// What the handlers need; they look for it here.
    context: handlers::Context,
    /// What the directives say.
    settings: HttpSettings,
    /// The same upstreams as the context's.
    live: Option<Rc<Live>>,
    /// The hooks of those that can be changed.
    hooks: Vec<Rc<Hook>>,
    /// The module's zone; none if no upstream can be changed.
    zone: Option<shm::Zone>,
    /// Whether the core knows draining peers.
    drains: bool,
}

/// Settings of an upstream block.
#[repr(C)]
#[derive(Default)]
struct UpstreamConf {
    /// Where the balancer looks for the hook.
    seat: Seat,
    /// What the directives say.
    settings: UpstreamSettings,
}

/// Settings of a location.
#[repr(C)]
#[derive(Default)]
struct LocationConf {
    /// What the directives say; the handlers look for it here.
    settings: forms::Settings,
}

/// The command table.
static mut COMMANDS: [ngx_command_t; directives::COMMANDS] = directives::commands(&Offsets {
    http: offset_of!(MainConf, settings),
    upstream: offset_of!(UpstreamConf, settings),
    location: offset_of!(LocationConf, settings),
});

/// Hooks of an http module.
static CONTEXT: ngx_http_module_t = ngx_http_module_t {
    preconfiguration: Some(ngx_http_upstream_control_preconfiguration),
    postconfiguration: Some(ngx_http_upstream_control_postconfiguration),
    create_main_conf: Some(create_conf::<MainConf>),
    init_main_conf: None,
    create_srv_conf: Some(create_conf::<UpstreamConf>),
    merge_srv_conf: None,
    create_loc_conf: Some(create_conf::<LocationConf>),
    merge_loc_conf: Some(ngx_http_upstream_control_merge_loc_conf),
};

/// The module.
#[expect(non_upper_case_globals, reason = "the name that nginx gives to what a module exports")]
#[cfg_attr(not(feature = "export-modules"), unsafe(no_mangle))]
pub static mut ngx_http_upstream_control_module: ngx_module_t = ngx_module_t {
    ctx: (&raw const CONTEXT).cast_mut().cast(),
    commands: (&raw mut COMMANDS).cast(),
    type_: NGX_HTTP_MODULE as ngx_uint_t,
    init_module: Some(ngx_http_upstream_control_init_module),
    init_process: Some(ngx_http_upstream_control_init_process),
    ..ngx_module_t::default()
};

/// The tables that `load_module` looks for.
#[cfg(feature = "export-modules")]
mod exported {
    use super::ngx_http_upstream_control_module;

    ngx::ngx_modules!(ngx_http_upstream_control_module);
}

/// Settings of a kind, at their defaults.
unsafe extern "C" fn create_conf<T: Default>(cf: *mut ngx_conf_t) -> *mut c_void {
    // SAFETY: nginx calls this while it reads a configuration, whose pool outlives the settings.
    let conf = catch_unwind(|| unsafe { conf::pool_value((*cf).pool, T::default()) });
    conf.ok().flatten().map_or(ptr::null_mut(), |conf| conf.as_ptr().cast())
}

/// nginx's entry: a location has settings, and what is around it.
unsafe extern "C" fn ngx_http_upstream_control_merge_loc_conf(
    cf: *mut ngx_conf_t,
    around: *mut c_void,
    own: *mut c_void,
) -> *mut c_char {
    conf::guarded(|| {
        let (around, own) = (around.cast::<LocationConf>(), own.cast::<LocationConf>());
        // SAFETY: nginx calls this with settings that `create_conf` made.
        Some(unsafe {
            let cf = NonNull::new(cf)?;
            let http = &mut conf::main_conf::<MainConf>(cf)?.as_mut().settings;
            directives::inherit(cf, http, &around.as_ref()?.settings, &mut own.as_mut()?.settings)
        })
    })
}

/// nginx's entry: an http block begins.
unsafe extern "C" fn ngx_http_upstream_control_preconfiguration(cf: *mut ngx_conf_t) -> ngx_int_t {
    conf::set_module(&raw mut ngx_http_upstream_control_module);
    // SAFETY: nginx calls this before it reads the http block.
    let done = catch_unwind(|| unsafe { add_variables(NonNull::new(cf)?) });
    if done.ok().flatten().is_some() { NGX_OK as ngx_int_t } else { NGX_ERROR as ngx_int_t }
}

/// nginx's entry: the http block was read.
unsafe extern "C" fn ngx_http_upstream_control_postconfiguration(cf: *mut ngx_conf_t) -> ngx_int_t {
    // SAFETY: nginx calls this once for an http block.
    let done = catch_unwind(|| unsafe { postconfiguration(NonNull::new(cf)?) });
    if done.ok().flatten().is_some() { NGX_OK as ngx_int_t } else { NGX_ERROR as ngx_int_t }
}

/// Finds out what each upstream is, and hooks those that can be changed. None if there is no memory.
///
/// # Safety
///
/// See [`ngx_http_upstream_control_postconfiguration`].
unsafe fn postconfiguration(cf: NonNull<ngx_conf_t>) -> Option<()> {
    // SAFETY: see above; the settings are those that `create_conf` made.
    let (main, http, balancers, all) = unsafe {
        let main = conf::main_conf::<MainConf>(cf)?.as_mut();
        let http = conf::srv_conf::<UpstreamConf>(cf).map(|http| &(*http.as_ptr()).settings);
        (main, http, Balancers::ask(cf), upstream::all(cf))
    };
    main.drains = balancers.drains;

    let mut live = Live::default();
    let (mut candidates, mut tables, mut pools) = (Vec::new(), Vec::new(), Vec::new());
    for us in all {
        // SAFETY: as above.
        let found = unsafe { look_at(cf, us, http, &balancers, &mut live)? };
        candidates.push(found.candidate);
        tables.push(found.tables);
        pools.push(found.pools);
    }
    // SAFETY: as above; the candidates are all upstreams, in their order.
    unsafe { compose(cf, &mut live, &pools)? };
    // Upstreams may share a zone: all are known before slots are planned.
    // SAFETY: as above.
    let slots = unsafe { capacity::plan(cf, &candidates)? };
    for (place, ((upstream, tables), slots)) in live.iter().zip(tables).zip(slots).enumerate() {
        upstream.slots.set(slots);
        // SAFETY: as above; the settings of an upstream begin with a seat.
        unsafe {
            if let Some(pools) = live.pools_at(place) {
                Composed::install(upstream, Rc::clone(pools))?;
            } else if upstream.fixed().is_none() {
                main.hooks.push(Hook::install(upstream, tables)?);
            }
        }
    }
    if live.any_changeable() {
        let need = need(&candidates);
        // SAFETY: as above.
        main.zone = Some(unsafe {
            let present = shm::running(cf, &store_name()).map(shm::size);
            let size = main.settings.zone_size(cf, (need.servers, need.size()), present);
            shm::add(cf, &store_name(), size)?
        });
    }
    // SAFETY: as above.
    unsafe { directives::warn_of_locations(cf, main.settings.controls()) };
    let live = Rc::new(live);
    main.live = Some(Rc::clone(&live));
    main.context.upstreams = Some(live);
    Some(())
}

/// What was found out about an upstream.
struct Found<'a> {
    /// As its zone needs room.
    candidate: Candidate,
    /// What its balancer computed from its lists.
    tables: Option<zone::Tables>,
    /// As others may have it for a pool.
    pools: PoolCandidate<'a>,
}

/// Finds out what an upstream is, and adds it to those that are known. None if its zone is wrong, which was logged, or
/// if there is no memory.
///
/// # Safety
///
/// Called in `postconfiguration`, with the settings of the http block.
unsafe fn look_at<'a>(
    cf: NonNull<ngx_conf_t>,
    us: upstream::Upstream,
    http: Option<&UpstreamSettings>,
    balancers: &Balancers,
    live: &mut Live,
) -> Option<Found<'a>> {
    // SAFETY: see above; the settings are those that `create_conf` made, and live as long as the configuration.
    let settings: Option<&'a UpstreamSettings> = unsafe {
        conf::srv_conf_in::<UpstreamConf>((*us.as_ptr()).srv_conf).map(|own| &(*own.as_ptr()).settings)
    };
    let has_pools = settings.is_some_and(|settings| !settings.pools.is_empty());
    // The balancer that nginx gives to an upstream of pools is never asked.
    // SAFETY: as above.
    let method = if !has_pools { unsafe { balancers.method(us.as_non_null()) } } else { None };
    if settings.is_some_and(|settings| settings.has_two_zones(us)) {
        let text = format!("\"zone\" is duplicate: upstream \"{}\" has \"upstream_auto_zone\"", us.name());
        // SAFETY: as above.
        unsafe { conf::emerg(cf, &text) };
        return None;
    }
    let guard = settings.and_then(|settings| settings.guard(http));
    let fixed = match settings {
        None => Some(StaticReason::Implicit),
        Some(_) if has_pools => Some(StaticReason::Pools),
        // A balancer of another module may not bear a zone: there is no advice to add one.
        _ if method.is_none() => Some(StaticReason::UnknownBalancer),
        _ if us.zone().is_none() => Some(StaticReason::NoZone { kilobytes: capacity::advised_kilobytes(us) }),
        Some(own) => (!own.is_dynamic(http)).then_some(StaticReason::Excluded),
    };
    let tables = match (&fixed, method) {
        // SAFETY: as above; an upstream that can be changed has a zone.
        (None, Some(method)) => unsafe { balancers.tables(us.as_non_null(), method) },
        _ => Ok(None),
    };
    let fixed = fixed.or(tables.as_ref().err().map(|what| StaticReason::Layout(what)));
    let candidate = Candidate {
        upstream: us,
        is_known: method.is_some(),
        is_changeable: fixed.is_none(),
        capacity: settings.and_then(|settings| settings.capacity(http)),
    };
    if let (Some(guard), None) = (guard, &fixed) {
        // SAFETY: as above.
        unsafe { directives::warn_of_guard(cf, us, guard) };
    }
    let added = live.add(us, method, fixed, guard)?;
    let pools = PoolCandidate { upstream: us, name: added.name.clone(), settings, fixed: added.fixed() };
    Some(Found { candidate, tables: tables.ok().flatten(), pools })
}

/// Gives their pools to the upstreams that have pools. None if they are not as they must be, which was logged.
///
/// # Safety
///
/// Called in `postconfiguration`; the candidates are all upstreams, in their order.
unsafe fn compose(cf: NonNull<ngx_conf_t>, live: &mut Live, all: &[PoolCandidate<'_>]) -> Option<()> {
    for (place, candidate) in all.iter().enumerate().filter(|(_, candidate)| !candidate.pools().is_empty()) {
        match candidate.resolve(all) {
            Ok(pools) => live.compose(place, &pools),
            Err(message) => {
                // SAFETY: see above; only blocks have pools.
                unsafe { candidate.upstream.emerg(cf, &message) };
                return None;
            }
        }
    }
    Some(())
}

/// The memory that the module's zone needs for the upstreams that can be changed. A name that is yet to be resolved is
/// one server.
fn need(candidates: &[Candidate]) -> Need {
    let mut need = Need::default();
    for Candidate { upstream, capacity, .. } in candidates.iter().filter(|one| one.is_changeable) {
        let servers = upstream.configured();
        let texts = servers.iter().flat_map(|server| {
            let names = server.names.iter().map(String::len);
            let unresolved = server.names.is_empty().then_some(0);
            names.chain(unresolved).map(|name| server.server.len() + name)
        });
        need.add(upstream.name().len(), texts, capacity.unwrap_or(0));
    }
    need
}

/// Name of the module's own zone: it says which structures are in it, so that a module with others gets another zone.
fn store_name() -> String {
    format!("upstream_control:{MAGIC:x}")
}

/// nginx's entry: the configuration is whole, and will be run.
unsafe extern "C" fn ngx_http_upstream_control_init_module(cycle: *mut ngx_cycle_t) -> ngx_int_t {
    // SAFETY: nginx calls this in the master, when all zones of the new configuration are mapped.
    let done = catch_unwind(AssertUnwindSafe(|| unsafe { init_module(cycle) }));
    if done.is_ok() { NGX_OK as ngx_int_t } else { NGX_ERROR as ngx_int_t }
}

/// Takes control of the upstreams.
///
/// # Safety
///
/// See [`ngx_http_upstream_control_init_module`].
unsafe fn init_module(cycle: *mut ngx_cycle_t) {
    // SAFETY: see above; the settings are those that `create_conf` made, or there is no http block.
    unsafe {
        if conf::module().is_null() {
            return;
        }
        let Some(main) = conf::main_conf_of_cycle::<MainConf>(cycle) else {
            return;
        };
        let main = main.as_ref();
        if let Some(log) = Log::from_cycle(cycle) {
            main.settings.notices().for_each(|notice| log.notice(notice));
        }
        let log = Log::from_cycle(cycle);
        if let (Some(log), Some(_)) = (log, main.zone)
            && process::is_second_instance(cycle)
        {
            log.warn(
                "binary upgrade: run-time changes of the old nginx are not taken over, and until it ends a change \
                 reaches only the one of the two that answers",
            );
        }
        let old = shm::find((*cycle).old_cycle, &store_name());
        match (&main.live, main.zone, old) {
            (Some(live), Some(zone), old) => live.start(zone, old, main.drains, log),
            (_, _, Some(old)) => live::close(old, log),
            _ => {}
        }
        main.context.is_started.set(true);
    }
}

/// nginx's entry: a process of the configuration begins.
unsafe extern "C" fn ngx_http_upstream_control_init_process(cycle: *mut ngx_cycle_t) -> ngx_int_t {
    // SAFETY: nginx calls this once in each process, before it handles events.
    let done = catch_unwind(AssertUnwindSafe(|| unsafe { init_process(cycle) }));
    if done.is_ok() { NGX_OK as ngx_int_t } else { NGX_ERROR as ngx_int_t }
}

/// Starts the jobs.
///
/// # Safety
///
/// See [`ngx_http_upstream_control_init_process`].
unsafe fn init_process(cycle: *mut ngx_cycle_t) {
    // SAFETY: see above; the settings are those that `create_conf` made, or there is no http block.
    unsafe {
        if conf::module().is_null() {
            return;
        }
        let Some(main) = conf::main_conf_of_cycle::<MainConf>(cycle) else { return };
        let MainConf { live: Some(live), hooks, .. } = main.as_ref() else { return };
        let live = Rc::clone(live);
        jobs::start(live, vec![Box::new(Look::new(hooks.clone()))]);
    }
}
