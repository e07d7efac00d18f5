//! Which of nginx's balancers an upstream has.
//!
//! The functions that set balancers up are private to nginx's modules, but the handlers of their directives are not:
//! each is run on a scratch upstream, and leaves the function there. `keepalive` (before 1.29.7) and `sticky` put their
//! own function in the place of the balancer's and keep that one in their settings; where, is found in the same way.

use std::ffi::{CStr, c_void};
use std::ptr::{self, NonNull};

use nginx_sys::{
    ngx_conf_t, ngx_http_conf_ctx_t, ngx_http_max_module, ngx_http_module_t, ngx_http_upstream_init_pt,
    ngx_http_upstream_init_round_robin, ngx_http_upstream_module, ngx_http_upstream_srv_conf_t, ngx_int_t,
    ngx_module_t, ngx_pcalloc,
};

use crate::model::snapshot::Method;
use crate::nginx::{command, conf};
use crate::zone;
use crate::zone::backend::Backend;

/// A directive that sets a balancer up, and which.
const DIRECTIVES: &[(&CStr, &[&str], Method)] = &[
    (c"ngx_http_upstream_least_conn_module", &["least_conn"], Method::LeastConn),
    (c"ngx_http_upstream_ip_hash_module", &["ip_hash"], Method::IpHash),
    (c"ngx_http_upstream_hash_module", &["hash", "key"], Method::Hash),
    (c"ngx_http_upstream_hash_module", &["hash", "key", "consistent"], Method::HashConsistent),
    (c"ngx_http_upstream_random_module", &["random"], Method::Random),
    (c"ngx_http_upstream_least_time_module", &["least_time", "header"], Method::LeastTime),
];

/// A directive that wraps a balancer.
const WRAPPERS: &[(&CStr, &[&str])] = &[
    (c"ngx_http_upstream_keepalive_module", &["keepalive", "1"]),
    (c"ngx_http_upstream_sticky_module", &["sticky", "cookie", "upstream_control"]),
];

/// Words at the start of a wrapper's settings among which that of the wrapped function is sought: the settings of both
/// are longer.
const WRAPPER_WORDS: usize = 9;

/// Wrappers around one balancer, at most: each of them once.
const WRAPPERS_MAX: usize = WRAPPERS.len();

/// A function that sets a balancer up.
type InitUpstream = unsafe extern "C" fn(*mut ngx_conf_t, *mut ngx_http_upstream_srv_conf_t) -> ngx_int_t;

/// A wrapper of the running nginx.
struct Wrapper {
    /// Its function.
    init: InitUpstream,
    /// Place of its settings among those of all http modules.
    ctx_index: usize,
    /// The word of them that holds the wrapped function.
    word: usize,
}

/// The balancers of the running nginx.
pub struct Balancers {
    /// Each with the function that sets it up, and the place of its settings among those of all http modules.
    methods: Vec<(InitUpstream, Method, usize)>,
    /// The wrappers.
    wrappers: Vec<Wrapper>,
    /// Whether the core knows draining peers, which come with sticky sessions.
    pub drains: bool,
}

/// Stands for a balancer that a wrapper wraps.
unsafe extern "C" fn sentinel(_cf: *mut ngx_conf_t, _us: *mut ngx_http_upstream_srv_conf_t) -> ngx_int_t {
    0
}

impl Balancers {
    /// Asks the running nginx.
    ///
    /// # Safety
    ///
    /// Called in `postconfiguration`.
    pub unsafe fn ask(cf: NonNull<ngx_conf_t>) -> Self {
        let mut balancers = Self { methods: Vec::new(), wrappers: Vec::new(), drains: false };
        for (module, words, method) in DIRECTIVES {
            // SAFETY: see above.
            let scratch = unsafe { Scratch::run(cf, module, words, None) };
            if let Some((init, index)) =
                scratch.and_then(|scratch| Some((scratch.init()?, scratch.ctx_index())))
            {
                balancers.methods.push((init, *method, index));
            }
        }
        for (module, words) in WRAPPERS {
            // SAFETY: see above.
            let Some(scratch) = (unsafe { Scratch::run(cf, module, words, Some(sentinel)) }) else {
                continue;
            };
            balancers.drains |= words.first() == Some(&"sticky");
            balancers.wrappers.extend(scratch.wrapper());
        }
        balancers
    }

    /// The method of an upstream; none if it is not nginx's own.
    ///
    /// # Safety
    ///
    /// `us` is an upstream of the configuration being read; called in `postconfiguration`.
    pub unsafe fn method(&self, us: NonNull<ngx_http_upstream_srv_conf_t>) -> Option<Method> {
        let us = us.as_ptr();
        // SAFETY: see above.
        let (mut init, confs) = unsafe { ((*us).peer.init_upstream, (*us).srv_conf) };
        for _ in 0..=WRAPPERS_MAX {
            let Some(present) = init else {
                return Some(Method::RoundRobin);
            };
            let same = |other: InitUpstream| ptr::fn_addr_eq(present, other);
            if same(ngx_http_upstream_init_round_robin) {
                return Some(Method::RoundRobin);
            }
            if let Some((_, method, _)) = self.methods.iter().find(|(init, ..)| same(*init)) {
                return Some(*method);
            }
            let wrapper = self.wrappers.iter().find(|wrapper| same(wrapper.init))?;
            if confs.is_null() {
                return None;
            }
            // SAFETY: the settings of an upstream block have a place for each http module; those of the wrapper's are
            // longer than the words that were read when it was found.
            init = unsafe {
                let settings: *const ngx_http_upstream_init_pt = (*confs.add(wrapper.ctx_index)).cast();
                settings.add(wrapper.word).read()
            };
        }
        None
    }
}

impl Balancers {
    /// The tables of an upstream that have to follow its lists; none if it has none. The error says what is not as the
    /// module expects it.
    ///
    /// # Safety
    ///
    /// `us` is an upstream with a zone of the configuration being read, and `method` is its method; called in
    /// `postconfiguration`. The value is dropped by a cleanup of the configuration's pool.
    pub unsafe fn tables(
        &self,
        us: NonNull<ngx_http_upstream_srv_conf_t>,
        method: Method,
    ) -> Result<Option<zone::Tables>, &'static str> {
        let Some((.., index)) = self.methods.iter().find(|(_, of, _)| *of == method) else {
            return Ok(None);
        };
        // SAFETY: see above; the settings of an upstream block have a place for each http module.
        unsafe {
            match NonNull::new((*(*us.as_ptr()).srv_conf.add(*index)).cast()) {
                Some(settings) => zone::Current::tables(us, method, settings),
                None => Ok(None),
            }
        }
    }
}

/// A scratch upstream on which a directive's handler ran.
struct Scratch {
    /// The upstream.
    us: *mut ngx_http_upstream_srv_conf_t,
    /// The module of the directive.
    module: *mut ngx_module_t,
}

impl Scratch {
    /// Runs the handler of the directive `words` of the module with this name, on an upstream whose balancer is set up
    /// by `init`. None if nginx has no such module or the handler fails.
    ///
    /// # Safety
    ///
    /// Called in `postconfiguration`.
    unsafe fn run(
        cf: NonNull<ngx_conf_t>,
        module: &CStr,
        words: &[&str],
        init: ngx_http_upstream_init_pt,
    ) -> Option<Self> {
        let conf = cf.as_ptr();
        // SAFETY: the list of modules lives while the configuration is read.
        let (module, directive) = unsafe {
            let module = command::find_module(conf, module)?;
            (module, command::find_command(module, words.first()?)?)
        };
        // SAFETY: as above.
        let us = unsafe { Self::upstream(conf, module)? };
        // SAFETY: what the handler is given is shaped as nginx shapes it for a directive in an upstream block, in memory
        // of the configuration's pool, which nothing else refers to.
        let result = unsafe {
            (*us).peer.init_upstream = init;
            let context: *mut ngx_http_conf_ctx_t = conf::context(cf)?.as_ptr();
            let mut scratch_context = ngx_http_conf_ctx_t { srv_conf: (*us).srv_conf, ..*context };
            command::run(conf, module, directive, &raw mut scratch_context, words)
        };
        result?.is_null().then_some(Self { us, module })
    }

    /// An upstream with settings of nginx's upstream module, which are the upstream itself, and of another module.
    ///
    /// # Safety
    ///
    /// Called in `postconfiguration`, with an http module of the running nginx.
    unsafe fn upstream(
        conf: *mut ngx_conf_t,
        module: *mut ngx_module_t,
    ) -> Option<*mut ngx_http_upstream_srv_conf_t> {
        // SAFETY: see above; the configuration's pool lives while it is read, and there is a place for each http module.
        unsafe {
            let us: *mut ngx_http_upstream_srv_conf_t = zeroed(conf)?;
            let places = (&raw const ngx_http_max_module).read();
            let settings: *mut *mut c_void =
                ngx_pcalloc((*conf).pool, places * size_of::<*mut c_void>()).cast();
            if settings.is_null() {
                return None;
            }
            (*us).srv_conf = settings;
            if let Some(create) = (*(*module).ctx.cast::<ngx_http_module_t>()).create_srv_conf {
                *settings.add((*module).ctx_index) = create(conf);
            }
            *settings.add((&raw const ngx_http_upstream_module.ctx_index).read()) = us.cast();
            Some(us)
        }
    }

    /// Place of the module's settings among those of all http modules.
    fn ctx_index(&self) -> usize {
        // SAFETY: the module is one of the running nginx.
        unsafe { (*self.module).ctx_index }
    }

    /// The function that the handler left.
    fn init(&self) -> Option<InitUpstream> {
        // SAFETY: the scratch upstream lives in the configuration's pool.
        unsafe { (*self.us).peer.init_upstream }
    }

    /// What the handler wrapped the sentinel with; none if it left it in place.
    fn wrapper(&self) -> Option<Wrapper> {
        let init = self.init()?;
        if ptr::fn_addr_eq(init, sentinel as InitUpstream) {
            return None;
        }
        // SAFETY: the settings of the wrapper's module were made by itself and are longer than the words read here.
        unsafe {
            let ctx_index = self.ctx_index();
            let settings: *const usize = (*(*self.us).srv_conf.add(ctx_index)).cast();
            if settings.is_null() {
                return None;
            }
            let sentinel = sentinel as InitUpstream as usize;
            let word = (0..WRAPPER_WORDS).find(|word| settings.add(*word).read() == sentinel)?;
            Some(Wrapper { init, ctx_index, word })
        }
    }
}

/// Zeroes for a structure, in the configuration's pool.
unsafe fn zeroed<T>(conf: *mut ngx_conf_t) -> Option<*mut T> {
    // SAFETY: the pool lives while the configuration is read.
    let chunk = unsafe { ngx_pcalloc((*conf).pool, size_of::<T>()) }.cast::<T>();
    (!chunk.is_null()).then_some(chunk)
}
