//! Directives of upstream blocks.

use nginx_sys::ngx_flag_t;

use crate::nginx::conf::UNSET;

/// Settings of an upstream block; at the level of http, what holds for those that do not say otherwise.
#[repr(C)]
pub struct UpstreamSettings {
    /// `upstream_dynamic`: whether the upstream may be changed at run time. First, since nginx's own handler of flags
    /// writes it.
    dynamic: ngx_flag_t,
}

impl Default for UpstreamSettings {
    fn default() -> Self {
        Self { dynamic: UNSET }
    }
}

impl UpstreamSettings {
    /// Whether the upstream may be changed at run time, given what http says.
    pub fn is_dynamic(&self, http: Option<&Self>) -> bool {
        let said = if self.dynamic == UNSET { http.map_or(UNSET, |http| http.dynamic) } else { self.dynamic };
        said != 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_upstream_is_dynamic_unless_it_or_else_http_says_no() {
        let says = |dynamic| UpstreamSettings { dynamic };
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
}
