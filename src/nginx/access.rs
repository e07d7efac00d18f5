//! Whether anything keeps clients from a location.
//!
//! nginx does not tell: the settings of `allow`, `auth_basic` and the like are private to its modules. But the handlers of
//! the directives are not: each is run on scratch settings that its module made, and the words that it leaves there are
//! compared with those of a location.

use std::ffi::{CStr, c_void};
use std::ptr::{self, NonNull};

use nginx_sys::{
    NGX_HTTP_MODULE, ngx_command_t, ngx_conf_enum_t, ngx_conf_set_enum_slot, ngx_conf_t, ngx_create_pool,
    ngx_destroy_pool, ngx_http_complex_value_t, ngx_http_conf_ctx_t, ngx_http_core_loc_conf_t,
    ngx_http_core_module, ngx_http_core_srv_conf_t, ngx_http_max_module, ngx_http_module_t, ngx_module_t,
    ngx_pcalloc, ngx_pool_t,
};

use super::{command, conf};

/// Where a directive is in force.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Force {
    /// In a location with any of the words that it leaves.
    Any,
    /// In one with all of them: `off` leaves some, too.
    All,
    /// In one with any of them, and in all locations of a server with any.
    Server,
}

/// Directives that keep clients away, of nginx's own modules. Those of the last are for anything: what it is for is not to
/// be seen, so that it may be for this.
const DIRECTIVES: &[(&CStr, &[&str], Force)] = &[
    (c"ngx_http_access_module", &["deny", "all"], Force::Any),
    (c"ngx_http_auth_request_module", &["auth_request", "/"], Force::All),
    (c"ngx_http_rewrite_module", &["return", "403"], Force::Server),
];

/// How the names of directives begin by which other modules keep clients away, as far as is known.
const FOREIGN: &[&str] = &["auth_", "access_by_", "js_access", "modsecurity", "naxsi"];

/// nginx's own modules among those that have such directives. That of the core is `auth_delay`.
const OWN: &[&CStr] =
    &[c"ngx_http_core_module", c"ngx_http_auth_basic_module", c"ngx_http_auth_request_module"];

/// Words at the start of a module's settings that are compared.
const LOOKED_AT: usize = 8;

/// Size of the pool that scratch settings are made in: much more than [`LOOKED_AT`] words after them.
const SCRATCH: usize = 16 * 1024;

/// The settings of all modules of a location.
pub type LocConf = *mut *mut c_void;

/// A directive that keeps clients away.
struct Restriction {
    /// Place of its module's settings among those of all http modules.
    ctx_index: usize,
    /// The words that it leaves there.
    words: Vec<usize>,
    /// Where it is in force.
    force: Force,
}

/// What keeps clients away in the running nginx.
pub struct Access {
    /// The directives.
    restrictions: Vec<Restriction>,
    /// `auth_basic`: the place of its module's settings, and its own in them, in bytes.
    basic: Option<(usize, usize)>,
    /// `ssl_verify_client`: the same, and the value of `on`.
    verify: Option<(usize, usize, usize)>,
    /// Whether a module that is not nginx's may keep clients away, so that nothing is known.
    is_unknown: bool,
}

impl Access {
    /// Asks the running nginx.
    ///
    /// # Safety
    ///
    /// Called in `postconfiguration`.
    pub unsafe fn ask(cf: NonNull<ngx_conf_t>) -> Self {
        let run = |(module, words, force): &(&CStr, &[&str], Force)| {
            // SAFETY: see above.
            unsafe { learn(cf, module, words, *force) }
        };
        let restrictions = DIRECTIVES.iter().filter_map(run).collect();
        // SAFETY: see above.
        unsafe { Self { restrictions, basic: basic(cf), verify: verify(cf), is_unknown: is_unknown(cf) } }
    }

    /// Whether it is known that nothing keeps clients from a location.
    ///
    /// # Safety
    ///
    /// Called in `postconfiguration`, with the settings of a location of the configuration and its server.
    pub unsafe fn is_open(&self, location: LocConf, server: NonNull<ngx_http_core_srv_conf_t>) -> bool {
        // SAFETY: see above; settings were merged, and each module has a place.
        unsafe {
            let core = (&raw const ngx_http_core_module.ctx_index).read();
            let core: *const ngx_http_core_loc_conf_t = (*location.add(core)).cast();
            let context = (*server.as_ptr()).ctx;
            !self.is_unknown
                && (*core).named() == 0
                && (*core).internal != 1
                && !self
                    .restrictions
                    .iter()
                    .any(|it| it.is_in(location) || it.is_of_server((*context).loc_conf))
                && !self
                    .basic
                    .is_some_and(|(index, offset)| asks_for_password((*location.add(index)).byte_add(offset)))
                && !self.verify.is_some_and(|(index, offset, on)| {
                    (*(*context).srv_conf.add(index)).byte_add(offset).cast::<usize>().read() == on
                })
        }
    }
}

impl Restriction {
    /// Whether the directive is in force in a location.
    ///
    /// # Safety
    ///
    /// See [`Access::is_open`].
    unsafe fn is_in(&self, location: LocConf) -> bool {
        // SAFETY: see above. The module's own directive wrote to these words, so that its settings have them.
        unsafe {
            let settings = (*location.add(self.ctx_index)).cast::<usize>();
            if settings.is_null() {
                return false;
            }
            let is_set = |word: &usize| ![0, usize::MAX].contains(&settings.add(*word).read());
            match self.force {
                Force::Any | Force::Server => self.words.iter().any(is_set),
                Force::All => self.words.iter().all(is_set),
            }
        }
    }

    /// Whether the directive is in force in all locations of a server.
    ///
    /// # Safety
    ///
    /// See [`Access::is_open`].
    unsafe fn is_of_server(&self, server: LocConf) -> bool {
        // SAFETY: see above.
        self.force == Force::Server && unsafe { self.is_in(server) }
    }
}

/// The words that a directive leaves in the settings of its module. None if nginx has no such module, or the handler fails.
///
/// # Safety
///
/// See [`Access::ask`].
unsafe fn learn(cf: NonNull<ngx_conf_t>, module: &CStr, words: &[&str], force: Force) -> Option<Restriction> {
    // SAFETY: the modules and the context live while the configuration is read. What handlers leave on scratch settings
    // lies in the pool that is made here and destroyed when it was looked at.
    unsafe {
        let conf = cf.as_ptr();
        let module = command::find_module(conf, module)?;
        let directive = command::find_command(module, words.first()?)?;
        let pool = ngx_create_pool(SCRATCH, (*conf).log);
        if pool.is_null() {
            return None;
        }
        let mut scratch = ngx_conf_t { pool, ..*conf };
        let words = changed(&mut scratch, module, directive, words);
        ngx_destroy_pool(pool);
        words.filter(|words| !words.is_empty()).map(|words| Restriction {
            ctx_index: (*module).ctx_index,
            words,
            force,
        })
    }
}

/// The same, in the pool of `scratch`.
///
/// # Safety
///
/// See [`learn`], which calls this.
unsafe fn changed(
    scratch: &mut ngx_conf_t,
    module: *mut ngx_module_t,
    directive: *mut ngx_command_t,
    words: &[&str],
) -> Option<Vec<usize>> {
    // SAFETY: see above. nginx's pool gives out memory of its block upwards, so that zeroes which are asked for next lie
    // behind the settings: words behind short settings are readable.
    unsafe {
        let context: *const ngx_http_conf_ctx_t = scratch.ctx.cast();
        let places = (&raw const ngx_http_max_module).read();
        let all: LocConf = ngx_pcalloc(scratch.pool, places * size_of::<*mut c_void>()).cast();
        let create = (*(*module).ctx.cast::<ngx_http_module_t>()).create_loc_conf?;
        let settings = create(scratch).cast::<usize>();
        let padding = ngx_pcalloc(scratch.pool, LOOKED_AT * size_of::<usize>());
        if all.is_null() || settings.is_null() || !is_in_block(scratch.pool, settings) || padding.is_null() {
            return None;
        }
        *all.add((*module).ctx_index) = settings.cast();
        let read = || (0..LOOKED_AT).map(|word| settings.add(word).read()).collect::<Vec<_>>();
        let before = read();
        let mut context = ngx_http_conf_ctx_t { loc_conf: all, ..*context };
        let result = command::run(scratch, module, directive, &raw mut context, words)?;
        let is_other = |(before, after): (&usize, usize)| *before != after;
        let changed = before.iter().zip(read()).map(is_other);
        result.is_null().then(|| changed.enumerate().filter_map(|(word, is)| is.then_some(word)).collect())
    }
}

/// Whether so many words as are looked at lie in the first block of a pool.
///
/// # Safety
///
/// The pool is alive.
unsafe fn is_in_block(pool: *mut ngx_pool_t, settings: *mut usize) -> bool {
    // SAFETY: see above.
    let (first, end) = unsafe { (pool.addr(), (*pool).d.end.addr()) };
    settings.addr() > first && settings.addr().saturating_add(LOOKED_AT * size_of::<usize>()) <= end
}

/// Where the realm of `auth_basic` is kept.
///
/// # Safety
///
/// See [`Access::ask`].
unsafe fn basic(cf: NonNull<ngx_conf_t>) -> Option<(usize, usize)> {
    // SAFETY: the modules live while the configuration is read.
    unsafe {
        let module = command::find_module(cf.as_ptr(), c"ngx_http_auth_basic_module")?;
        let directive = command::find_command(module, "auth_basic")?;
        Some(((*module).ctx_index, (*directive).offset))
    }
}

/// Whether `auth_basic` asks for a password: it is there, and not `off`.
///
/// # Safety
///
/// The place is that of the directive in merged settings, where nginx keeps a value of its kind.
unsafe fn asks_for_password(place: *mut c_void) -> bool {
    // SAFETY: see above.
    unsafe {
        let value: *const ngx_http_complex_value_t = place.cast::<*const ngx_http_complex_value_t>().read();
        if value.is_null() || value.addr() == usize::MAX {
            return false;
        }
        conf::bytes(&(*value).value) != b"off"
    }
}

/// Where `ssl_verify_client` is kept, and the value of `on`.
///
/// # Safety
///
/// See [`Access::ask`].
unsafe fn verify(cf: NonNull<ngx_conf_t>) -> Option<(usize, usize, usize)> {
    // SAFETY: the modules live while the configuration is read. nginx's handler of words has a table of them, which ends
    // with an empty one, behind its directive.
    unsafe {
        let module = command::find_module(cf.as_ptr(), c"ngx_http_ssl_module")?;
        let directive = command::find_command(module, "ssl_verify_client")?;
        let set = (*directive).set?;
        if !ptr::fn_addr_eq(set, ngx_conf_set_enum_slot as SetHandler) {
            return None;
        }
        let mut word: *const ngx_conf_enum_t = (*directive).post.cast();
        while !word.is_null() && (*word).name.len != 0 {
            if conf::bytes(&(*word).name) == b"on" {
                return Some(((*module).ctx_index, (*directive).offset, (*word).value));
            }
            word = word.add(1);
        }
    }
    None
}

/// nginx's type of a directive's handler.
type SetHandler =
    unsafe extern "C" fn(*mut ngx_conf_t, *mut ngx_command_t, *mut c_void) -> *mut std::ffi::c_char;

/// Whether a module that is not nginx's may keep clients away.
///
/// # Safety
///
/// See [`Access::ask`].
unsafe fn is_unknown(cf: NonNull<ngx_conf_t>) -> bool {
    // SAFETY: nginx ends the array of a configuration's modules with a null pointer, and a module's directives with one
    // without a name.
    unsafe {
        let mut modules = (*(*cf.as_ptr()).cycle).modules;
        while !(*modules).is_null() {
            let module = *modules;
            modules = modules.add(1);
            let is_own = !(*module).name.is_null() && OWN.contains(&CStr::from_ptr((*module).name));
            if is_own || (*module).type_ != NGX_HTTP_MODULE as usize {
                continue;
            }
            let mut directive = (*module).commands;
            while !directive.is_null() && (*directive).name.len != 0 {
                let name = conf::bytes(&(*directive).name);
                if FOREIGN.iter().any(|begin| name.starts_with(begin.as_bytes())) {
                    return true;
                }
                directive = directive.add(1);
            }
        }
    }
    false
}
