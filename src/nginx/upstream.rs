//! The upstreams of an http block, as the configuration has them.

use std::ptr::NonNull;

use nginx_sys::{
    AF_INET, NGX_HTTP_UPSTREAM_BACKUP, ngx_addr_t, ngx_array_push, ngx_conf_t, ngx_http_conf_ctx_t,
    ngx_http_upstream_main_conf_t, ngx_http_upstream_module, ngx_http_upstream_server_t,
    ngx_http_upstream_srv_conf_t, ngx_pcalloc, ngx_shm_zone_t, sockaddr_in, socklen_t,
};

use super::conf::{bytes, context, emerg_at, place_of, pool_str};

/// Name of the server that an upstream of pools has for nginx: nobody gets to see it.
const PLACEHOLDER: &str = "0.0.0.0:0";

/// An upstream of the configuration.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Upstream(NonNull<ngx_http_upstream_srv_conf_t>);

#[cfg(all(test, feature = "nginx-objs"))]
impl Upstream {
    /// An upstream of a test.
    pub fn of(us: NonNull<ngx_http_upstream_srv_conf_t>) -> Self {
        Self(us)
    }
}

/// A server as the configuration has it.
pub struct Configured {
    /// Text of the `server` directive.
    pub server: String,
    /// Its addresses, as nginx writes them.
    pub names: Vec<String>,
    /// Weight.
    pub weight: u64,
    /// Limit of connections; 0 for none.
    pub max_conns: u64,
    /// Failures after which it is left alone.
    pub max_fails: u64,
    /// For how long, in seconds.
    pub fail_timeout: u64,
    /// Whether it is marked down.
    pub down: bool,
    /// Whether it is marked backup.
    pub backup: bool,
}

/// All upstreams of the http block, in their order.
///
/// # Safety
///
/// Called in `postconfiguration`, or when settings are merged.
pub unsafe fn all(cf: NonNull<ngx_conf_t>) -> Vec<Upstream> {
    // SAFETY: the context is that of the http block, or of a block inside it, which has the same main settings. nginx's
    // upstream module always has such, with an array of pointers.
    unsafe {
        let Some(context) = context(cf) else {
            return Vec::new();
        };
        let context: *const ngx_http_conf_ctx_t = context.as_ptr();
        let index = (&raw const ngx_http_upstream_module.ctx_index).read();
        let main: *mut ngx_http_upstream_main_conf_t = (*(*context).main_conf.add(index)).cast();
        let Some(main) = main.as_ref() else {
            return Vec::new();
        };
        main.upstreams
            .as_slice::<*mut ngx_http_upstream_srv_conf_t>()
            .iter()
            .filter_map(|us| NonNull::new(*us))
            .map(Upstream)
            .collect()
    }
}

/// The upstream whose block is being read.
///
/// # Safety
///
/// Called by the handler of a directive in an upstream block.
pub unsafe fn present(cf: NonNull<ngx_conf_t>) -> Option<Upstream> {
    // SAFETY: in an upstream block nginx's upstream module has the settings of that upstream at its place.
    unsafe {
        let index = (&raw const ngx_http_upstream_module.ctx_index).read();
        NonNull::new((*(*context(cf)?.as_ptr()).srv_conf.add(index)).cast()).map(Upstream)
    }
}

impl Upstream {
    /// nginx's structure.
    pub fn as_ptr(self) -> *mut ngx_http_upstream_srv_conf_t {
        self.0.as_ptr()
    }

    /// The same, never null.
    pub fn as_non_null(self) -> NonNull<ngx_http_upstream_srv_conf_t> {
        self.0
    }

    /// nginx's structure, to read what is fixed when the configuration was read.
    fn conf(&self) -> &ngx_http_upstream_srv_conf_t {
        // SAFETY: the structure lives in the pool of the configuration, like every `Upstream` that names it.
        unsafe { self.0.as_ref() }
    }

    /// Whether it is an address in a directive such as `proxy_pass`, and no `upstream` block.
    pub fn is_implicit(&self) -> bool {
        self.conf().srv_conf.is_null()
    }

    /// Gives an upstream that is to have no servers one that is down, since nginx refuses an upstream without any. None
    /// without memory.
    ///
    /// # Safety
    ///
    /// Called by the handler of a directive in this upstream's block.
    pub unsafe fn push_placeholder(self, cf: NonNull<ngx_conf_t>) -> Option<()> {
        // SAFETY: see above: nginx has made the array of servers. A server and an address are plain words, for which
        // zeroes are nginx's own start.
        unsafe {
            let pool = (*cf.as_ptr()).pool;
            let address: *mut sockaddr_in = ngx_pcalloc(pool, size_of::<sockaddr_in>()).cast();
            let addrs: *mut ngx_addr_t = ngx_pcalloc(pool, size_of::<ngx_addr_t>()).cast();
            let server: *mut ngx_http_upstream_server_t = ngx_array_push((*self.as_ptr()).servers).cast();
            if address.is_null() || addrs.is_null() || server.is_null() {
                return None;
            }
            (*address).sin_family = AF_INET as u16;
            (*addrs).sockaddr = address.cast();
            (*addrs).socklen = size_of::<sockaddr_in>() as socklen_t;
            (*addrs).name = pool_str(pool, PLACEHOLDER)?;
            server.write_bytes(0, 1);
            (*server).name = (*addrs).name;
            (*server).addrs = addrs;
            (*server).naddrs = 1;
            (*server).weight = 1;
            (*server).down = 1;
        }
        Some(())
    }

    /// What an upstream of pools must not have: its words. None if it has no such thing.
    pub fn unfit_for_pools(&self) -> Option<&'static str> {
        let conf = self.conf();
        // SAFETY: the array lives in the configuration's pool.
        if unsafe { conf.servers.as_ref() }.is_none_or(|servers| servers.nelts != 1) {
            Some("\"server\"")
        } else if !conf.shm_zone.is_null() {
            Some("\"zone\"")
        } else if conf.peer.init_upstream.is_some() {
            Some("a load balancing method, \"keepalive\" or \"sticky\"")
        } else {
            None
        }
    }

    /// Logs an error about its block.
    ///
    /// # Safety
    ///
    /// Called while the configuration is read; the upstream is a block.
    pub unsafe fn emerg(&self, cf: NonNull<ngx_conf_t>, message: &str) {
        // SAFETY: see above.
        unsafe { emerg_at(cf, &self.place(), message) };
    }

    /// Where its block begins.
    pub fn place(&self) -> String {
        // SAFETY: nginx notes the file, with a zero byte at its end, when the block begins.
        unsafe { place_of(self.conf().file_name, self.conf().line) }
    }

    /// Its name; an address has its port.
    pub fn name(&self) -> String {
        // SAFETY: the string lives in the configuration's pool.
        let name = String::from_utf8_lossy(unsafe { bytes(&self.conf().host) }).into_owned();
        if self.is_implicit() && self.conf().port != 0 {
            format!("{name}:{}", self.conf().port)
        } else {
            name
        }
    }

    /// Name of its shared zone.
    pub fn zone(&self) -> Option<String> {
        // SAFETY: the zone, if there is one, lives in the configuration's pool, as does its name.
        unsafe { self.conf().shm_zone.as_ref() }
            // SAFETY: likewise.
            .map(|zone| String::from_utf8_lossy(unsafe { bytes(&zone.shm.name) }).into_owned())
    }

    /// Its shared zone; null if it has none.
    pub fn shm_zone(&self) -> *const ngx_shm_zone_t {
        self.conf().shm_zone
    }

    /// Whether its balancer has a list of backups.
    pub fn has_backups(&self) -> bool {
        self.conf().flags & NGX_HTTP_UPSTREAM_BACKUP as usize != 0
    }

    /// How many lines of servers the configuration has, and how many addresses.
    pub fn count(&self) -> usize {
        // SAFETY: see `configured`.
        unsafe {
            let Some(servers) = self.conf().servers.as_ref() else { return 0 };
            let addresses =
                servers.as_slice::<ngx_http_upstream_server_t>().iter().map(|server| server.naddrs);
            addresses.fold(servers.nelts, usize::saturating_add)
        }
    }

    /// Its servers, as the configuration has them.
    pub fn configured(&self) -> Vec<Configured> {
        // SAFETY: the array, its servers and their addresses live in the configuration's pool and are not changed after
        // the configuration was read.
        unsafe {
            let Some(servers) = self.conf().servers.as_ref() else {
                return Vec::new();
            };
            servers.as_slice::<ngx_http_upstream_server_t>().iter().map(|server| configured(server)).collect()
        }
    }
}

/// One server.
///
/// # Safety
///
/// The server is one of a configuration that was read.
unsafe fn configured(server: &ngx_http_upstream_server_t) -> Configured {
    // SAFETY: see above.
    let names = unsafe {
        if server.addrs.is_null() {
            Vec::new()
        } else {
            std::slice::from_raw_parts(server.addrs, server.naddrs)
                .iter()
                .map(|address| String::from_utf8_lossy(bytes(&address.name)).into_owned())
                .collect()
        }
    };
    Configured {
        // SAFETY: see above.
        server: String::from_utf8_lossy(unsafe { bytes(&server.name) }).into_owned(),
        names,
        weight: server.weight as u64,
        max_conns: server.max_conns as u64,
        max_fails: server.max_fails as u64,
        fail_timeout: u64::try_from(server.fail_timeout).unwrap_or(0),
        down: server.down != 0,
        backup: server.backup() != 0,
    }
}
