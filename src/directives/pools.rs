//! `pool`: an upstream that another upstream hands its requests to.

use std::ffi::{c_char, c_void};
use std::ptr::NonNull;

use nginx_sys::{ngx_command_t, ngx_conf_t};

use crate::model::pools::POOLS_MAX;
use crate::model::query::quoted;
use crate::model::snapshot::StaticReason;
use crate::model::time::Seconds;
use crate::nginx::conf::{self, CONF_ERROR, CONF_OK};
use crate::nginx::upstream::{self, Upstream};

use super::upstream::{PoolSetting, UpstreamSettings};

/// nginx's entry: `pool NAME [priority=N] [failback=TIME];`.
pub(super) unsafe extern "C" fn cmd_upstream_pool(
    cf: *mut ngx_conf_t,
    cmd: *mut ngx_command_t,
    conf: *mut c_void,
) -> *mut c_char {
    conf::guarded(|| {
        let cf = NonNull::new(cf)?;
        // SAFETY: nginx calls this with the settings of the upstream block, in which these lie at the command's offset.
        unsafe { add(cf, conf.byte_add((*cmd).offset).cast::<UpstreamSettings>().as_mut()?) }
    })
}

/// Adds a pool. None without memory.
///
/// # Safety
///
/// Called by the directive's handler.
unsafe fn add(cf: NonNull<ngx_conf_t>, settings: &mut UpstreamSettings) -> Option<*mut c_char> {
    // SAFETY: see above.
    unsafe {
        let args = conf::args(cf);
        let mut words = args.iter().skip(1);
        let Some(name) = words.next() else { return Some(CONF_ERROR) };
        let mut pool = PoolSetting {
            name: String::from_utf8_lossy(name).into_owned(),
            priority: 0,
            failback: Seconds(0),
        };
        if pool.name.is_empty() {
            return Some(conf::emerg(cf, "empty name of a pool"));
        }
        for word in words {
            if pool.take(word).is_none() {
                return Some(conf::emerg(
                    cf,
                    &format!(
                        "invalid parameter {}, it must be \"priority=N\" or \"failback=TIME\"",
                        quoted(word)
                    ),
                ));
            }
        }
        if settings.pools.iter().any(|other| other.name.eq_ignore_ascii_case(&pool.name)) {
            return Some(conf::emerg(cf, &format!("duplicate pool {}", quoted(pool.name.as_bytes()))));
        }
        if settings.pools.is_empty() {
            // nginx refuses an upstream without any.
            upstream::present(cf)?.push_placeholder(cf)?;
        }
        settings.pools.push(pool);
    }
    Some(CONF_OK)
}

impl PoolSetting {
    /// Reads a parameter. None if it is none.
    fn take(&mut self, word: &[u8]) -> Option<()> {
        if let Some(number) = word.strip_prefix(b"priority=") {
            let digits = str::from_utf8(number).ok()?;
            // No sign, which `parse` would take.
            self.priority =
                digits.bytes().all(|byte| byte.is_ascii_digit()).then(|| digits.parse().ok())??;
            return Some(());
        }
        // SAFETY: directives are read by nginx.
        self.failback = Seconds(unsafe { conf::seconds(word.strip_prefix(b"failback=")?) }?);
        Some(())
    }
}

/// An upstream, as far as `pool` asks.
pub struct Candidate<'a> {
    /// nginx's side.
    pub upstream: Upstream,
    /// Its name.
    pub name: String,
    /// What its block says; none if it is no block.
    pub settings: Option<&'a UpstreamSettings>,
    /// Why it cannot be changed at run time, if it cannot.
    pub fixed: Option<StaticReason>,
}

impl Candidate<'_> {
    /// Its own pools.
    pub fn pools(&self) -> &[PoolSetting] {
        self.settings.map_or(&[], |settings| settings.pools.as_slice())
    }

    /// Finds the upstreams that are the pools of this one: the place of each among `all`, its priority and its failback.
    ///
    /// # Errors
    ///
    /// What is wrong, in words.
    pub fn resolve(&self, all: &[Self]) -> Result<Vec<(usize, u32, Seconds)>, String> {
        let name = quoted(self.name.as_bytes());
        let unfit = self.settings.and_then(UpstreamSettings::unfit_for_pools);
        if let Some(what) = unfit.or_else(|| self.upstream.unfit_for_pools()) {
            return Err(format!("{what} is not allowed in upstream {name}, which has pools"));
        }
        if self.pools().len() > POOLS_MAX {
            return Err(format!("upstream {name} has more than {POOLS_MAX} pools"));
        }
        self.pools().iter().map(|pool| self.find(pool, all)).collect()
    }

    /// Finds one pool.
    fn find(&self, pool: &PoolSetting, all: &[Self]) -> Result<(usize, u32, Seconds), String> {
        let (name, upstream) = (quoted(pool.name.as_bytes()), quoted(self.name.as_bytes()));
        if pool.name.eq_ignore_ascii_case(&self.name) {
            return Err(format!("upstream {upstream} is a pool of itself"));
        }
        let Some((place, found)) = all.iter().enumerate().find(|(_, other)| other.is_named(&pool.name))
        else {
            return Err(format!("pool {name} not found in upstream {upstream}"));
        };
        if found.leads_to(&self.name, all, all.len()) {
            return Err(format!("upstreams {upstream} and {name} are pools of each other"));
        }
        if !found.pools().is_empty() {
            return Err(format!("pool {name} of upstream {upstream} has pools itself"));
        }
        match &found.fixed {
            Some(reason) => Err(format!("pool {name} of upstream {upstream} is static: {reason}")),
            None => Ok((place, pool.priority, pool.failback)),
        }
    }

    /// Whether this is the `upstream` block of that name, which nginx compares without regard to case.
    fn is_named(&self, name: &str) -> bool {
        !self.upstream.is_implicit() && self.name.eq_ignore_ascii_case(name)
    }

    /// Whether its pools, or those of its pools, have that name. `depth` keeps from going in circles.
    fn leads_to(&self, name: &str, all: &[Self], depth: usize) -> bool {
        let Some(depth) = depth.checked_sub(1) else { return false };
        self.pools().iter().any(|pool| {
            let next = || all.iter().find(|other| other.is_named(&pool.name));
            pool.name.eq_ignore_ascii_case(name) || next().is_some_and(|next| next.leads_to(name, all, depth))
        })
    }
}
