//! Directives of upstream blocks.

use std::ffi::{c_char, c_void};
use std::ptr::{self, NonNull};

use nginx_sys::{ngx_command_t, ngx_conf_t, ngx_flag_t, ngx_shm_zone_t};

use crate::model::time::Seconds;
use crate::nginx::conf::{self, CONF_ERROR, CONF_OK, UNSET};
use crate::nginx::upstream::Upstream;
use crate::ops::Guard;

/// Most servers that `upstream_capacity` may ask for: nginx's round robin looks at each place for a server, whether there
/// is one or not, and so many take some 100 MB of shared memory.
const CAPACITY_MAX: usize = 100_000;

/// Settings of an upstream block; at the level of http, what holds for those that do not say otherwise.
#[repr(C)]
pub struct UpstreamSettings {
    /// `upstream_dynamic`: whether the upstream may be changed at run time. First, since nginx's own handler of flags
    /// writes it.
    dynamic: ngx_flag_t,
    /// `upstream_guard`.
    guard: GuardSetting,
    /// `upstream_capacity`; none if it is not there.
    capacity: Option<usize>,
    /// The upstreams of `pool`, in their order; none in an upstream that has servers.
    pub pools: Vec<PoolSetting>,
    /// The zone that `upstream_auto_zone` made; null if it is not there.
    pub(super) auto_zone: *const ngx_shm_zone_t,
}

/// What one `pool` says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PoolSetting {
    /// Name of the upstream that is the pool.
    pub name: String,
    /// Lower ones are used first.
    pub priority: u32,
    /// How long it must have had a usable server before it takes the place of a worse one again.
    pub failback: Seconds,
}

/// What `upstream_guard` says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum GuardSetting {
    /// It is not there.
    Unset,
    /// `off`.
    Off,
    /// So many servers must be left.
    Min(Guard),
}

impl Default for UpstreamSettings {
    fn default() -> Self {
        Self {
            dynamic: UNSET,
            guard: GuardSetting::Unset,
            capacity: None,
            pools: Vec::new(),
            auto_zone: ptr::null(),
        }
    }
}

impl UpstreamSettings {
    /// Whether the upstream may be changed at run time, given what http says.
    pub fn is_dynamic(&self, http: Option<&Self>) -> bool {
        let said = if self.dynamic == UNSET { http.map_or(UNSET, |http| http.dynamic) } else { self.dynamic };
        said != 0
    }

    /// How many usable servers a change must leave, given what http says.
    pub fn guard(&self, http: Option<&Self>) -> Option<Guard> {
        match (self.guard, http) {
            (GuardSetting::Min(guard), _) => Some(guard),
            (GuardSetting::Unset, Some(http)) => http.guard(None),
            (GuardSetting::Unset | GuardSetting::Off, _) => None,
        }
    }

    /// How many servers the upstream must have room for, given what http says. Where lists of peers grow at run time it
    /// means nothing.
    pub fn capacity(&self, http: Option<&Self>) -> Option<usize> {
        self.capacity.or_else(|| http?.capacity)
    }

    /// A directive of these that is of no use in an upstream of pools, if one is there.
    pub fn unfit_for_pools(&self) -> Option<&'static str> {
        if self.dynamic != UNSET {
            Some("\"upstream_dynamic\"")
        } else if self.guard != GuardSetting::Unset {
            Some("\"upstream_guard\"")
        } else if self.capacity.is_some() {
            Some("\"upstream_capacity\"")
        } else {
            None
        }
    }

    /// Whether the upstream has a `zone` after its `upstream_auto_zone`, which nginx took for the one zone of it.
    pub fn has_two_zones(&self, upstream: Upstream) -> bool {
        !self.auto_zone.is_null() && !ptr::eq(self.auto_zone, upstream.shm_zone())
    }
}

impl GuardSetting {
    /// Reads the word after `upstream_guard`.
    fn parse(word: &str) -> Option<Self> {
        match word {
            "off" => Some(Self::Off),
            word => word.strip_prefix("min=").and_then(Guard::parse).map(Self::Min),
        }
    }
}

/// nginx's entry: `upstream_guard min=N | min=N% | off;`.
pub(super) unsafe extern "C" fn cmd_upstream_guard(
    cf: *mut ngx_conf_t,
    cmd: *mut ngx_command_t,
    conf: *mut c_void,
) -> *mut c_char {
    conf::guarded(|| {
        let cf = NonNull::new(cf)?;
        // SAFETY: nginx calls this with the settings of the http or upstream block, in which these lie at the command's
        // offset.
        Some(unsafe { set_guard(cf, conf.byte_add((*cmd).offset).cast::<UpstreamSettings>().as_mut()?) })
    })
}

/// Reads the guard.
///
/// # Safety
///
/// Called by the directive's handler.
unsafe fn set_guard(cf: NonNull<ngx_conf_t>, settings: &mut UpstreamSettings) -> *mut c_char {
    if settings.guard != GuardSetting::Unset {
        return c"is duplicate".as_ptr().cast_mut();
    }
    // SAFETY: see above.
    unsafe {
        let args = conf::args(cf);
        let Some(word) = args.get(1) else {
            return CONF_ERROR;
        };
        let word = String::from_utf8_lossy(word);
        match GuardSetting::parse(&word) {
            Some(guard) => {
                settings.guard = guard;
                CONF_OK
            }
            None => conf::emerg(
                cf,
                &format!("invalid value \"{word}\", it must be \"min=N\", \"min=N%\" or \"off\""),
            ),
        }
    }
}

/// Reads the word after `upstream_capacity`.
fn parse_capacity(word: &str) -> Option<usize> {
    let is_number = word.bytes().all(|byte| byte.is_ascii_digit());
    word.parse().ok().filter(|capacity| is_number && (1..=CAPACITY_MAX).contains(capacity))
}

/// nginx's entry: `upstream_capacity N;`.
pub(super) unsafe extern "C" fn cmd_upstream_capacity(
    cf: *mut ngx_conf_t,
    cmd: *mut ngx_command_t,
    conf: *mut c_void,
) -> *mut c_char {
    conf::guarded(|| {
        let cf = NonNull::new(cf)?;
        // SAFETY: nginx calls this with the settings of the http or upstream block, in which these lie at the command's
        // offset.
        Some(unsafe { set_capacity(cf, conf.byte_add((*cmd).offset).cast::<UpstreamSettings>().as_mut()?) })
    })
}

/// Reads the capacity.
///
/// # Safety
///
/// Called by the directive's handler.
unsafe fn set_capacity(cf: NonNull<ngx_conf_t>, settings: &mut UpstreamSettings) -> *mut c_char {
    if settings.capacity.is_some() {
        return c"is duplicate".as_ptr().cast_mut();
    }
    // SAFETY: see above.
    unsafe {
        let args = conf::args(cf);
        let Some(word) = args.get(1) else {
            return CONF_ERROR;
        };
        let word = String::from_utf8_lossy(word);
        settings.capacity = parse_capacity(&word);
        match settings.capacity {
            Some(_) => CONF_OK,
            None => conf::emerg(
                cf,
                &format!("invalid value \"{word}\", it must be a number from 1 to {CAPACITY_MAX}"),
            ),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_upstream_is_dynamic_unless_it_or_else_http_says_no() {
        let says = |dynamic| UpstreamSettings { dynamic, ..UpstreamSettings::default() };
        let table = [
            (UNSET, UNSET, true),
            (UNSET, 0, false),
            (UNSET, 1, true),
            (0, UNSET, false),
            (0, 1, false),
            (1, 0, true),
        ];
        for (upstream, http, wanted) in table {
            assert_eq!(says(upstream).is_dynamic(Some(&says(http))), wanted, "{upstream} {http}");
        }
        assert!(says(UNSET).is_dynamic(None));
    }

    #[test]
    fn an_upstream_has_its_own_guard_or_else_that_of_http() {
        let says = |guard| UpstreamSettings { guard, ..UpstreamSettings::default() };
        let (unset, off) = (GuardSetting::Unset, GuardSetting::Off);
        let min = |servers| GuardSetting::Min(Guard::Servers(servers));
        let table = [
            (unset, unset, None),
            (unset, off, None),
            (unset, min(2), Some(Guard::Servers(2))),
            (off, min(2), None),
            (min(1), min(2), Some(Guard::Servers(1))),
            (min(1), unset, Some(Guard::Servers(1))),
        ];
        for (upstream, http, wanted) in table {
            assert_eq!(says(upstream).guard(Some(&says(http))), wanted, "{upstream:?} {http:?}");
        }
        assert_eq!(says(unset).guard(None), None);
    }

    #[test]
    fn words_of_the_guard() {
        let table = [
            ("min=1", Some(GuardSetting::Min(Guard::Servers(1)))),
            ("min=50%", Some(GuardSetting::Min(Guard::Percent(50)))),
            ("off", Some(GuardSetting::Off)),
            ("min=0", None),
            ("min=101%", None),
            ("min=", None),
            ("max=1", None),
            ("1", None),
            ("on", None),
        ];
        for (word, wanted) in table {
            assert_eq!(GuardSetting::parse(word), wanted, "{word}");
        }
    }

    #[test]
    fn an_upstream_has_its_own_capacity_or_else_that_of_http() {
        let says = |capacity| UpstreamSettings { capacity, ..UpstreamSettings::default() };
        let table = [
            (None, None, None),
            (None, Some(9), Some(9)),
            (Some(2), Some(9), Some(2)),
            (Some(2), None, Some(2)),
        ];
        for (upstream, http, wanted) in table {
            assert_eq!(says(upstream).capacity(Some(&says(http))), wanted, "{upstream:?} {http:?}");
        }
        assert_eq!(says(Some(2)).capacity(None), Some(2));
    }

    #[test]
    fn words_of_the_capacity() {
        let good = [("1", 1), ("64", 64), ("100000", 100_000), ("007", 7)];
        for (word, wanted) in good {
            assert_eq!(parse_capacity(word), Some(wanted), "{word}");
        }
        for word in ["", "0", "100001", "-1", "+1", "1k", "1.5", "all", "99999999999999999999"] {
            assert_eq!(parse_capacity(word), None, "{word}");
        }
    }
}
