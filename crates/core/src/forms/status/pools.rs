//! Pools in the status: which of them is active, since when, and why it is not a better one.

use std::io::Write as _;

use serde::Serialize;

use crate::model::log::escaped;
use crate::model::pools::{Pool, Pools, Standing};
use crate::model::snapshot::Snapshot;

/// The word for how an upstream chooses among its pools, where others have the balancing method.
const METHOD: &str = "pools";

/// The pools of an upstream, in JSON.
#[derive(Serialize)]
pub struct PoolsView<'a> {
    /// All, the best first.
    pools: Vec<PoolView<'a>>,
    /// The one that requests are handed to; null if none has a usable server.
    active: Option<&'a str>,
    /// Since when it is so.
    since: String,
}

/// One pool.
#[derive(Serialize)]
struct PoolView<'a> {
    /// Name of the upstream that it is.
    pool: &'a str,
    /// Lower ones are better.
    priority: u32,
    /// How long it must have had a usable server before it takes the place of a worse one; a time with its unit.
    failback: String,
    /// The part that it plays.
    state: &'static str,
    /// Why it is not used, if it is better than the one that is.
    #[serde(skip_serializing_if = "Option::is_none")]
    why: Option<String>,
}

impl<'a> From<&'a Pools> for PoolsView<'a> {
    fn from(pools: &'a Pools) -> Self {
        Self {
            pools: pools.list.iter().map(PoolView::from).collect(),
            active: pools.active().map(|pool| pool.name.as_str()),
            since: pools.since.to_string(),
        }
    }
}

impl<'a> From<&'a Pool> for PoolView<'a> {
    fn from(pool: &'a Pool) -> Self {
        Self {
            pool: &pool.name,
            priority: pool.priority,
            failback: pool.failback.to_string(),
            state: pool.standing.as_str(),
            why: Some(pool.standing.to_string()).filter(|why| !why.is_empty()),
        }
    }
}

/// How an upstream chooses; none if unknown.
pub fn method(snapshot: &Snapshot) -> Option<&'static str> {
    match snapshot.pools {
        Some(_) => Some(METHOD),
        None => snapshot.method.map(|method| method.as_str()),
    }
}

/// Whether a pool has a usable server.
pub fn is_usable(pool: &Pool) -> bool {
    !matches!(pool.standing, Standing::Unavail { .. })
}

/// Adds what is said of the pools in the place of the reason why an upstream is static: which one is active.
pub fn summary(out: &mut Vec<u8>, pools: &Pools) {
    // Writing to memory cannot fail, here as below.
    let _ = match pools.active() {
        Some(pool) => write!(out, ", \"{}\" active since {}", escaped(&pool.name), pools.since),
        None => write!(out, ", none active since {}", pools.since),
    };
}

/// Adds a line for each pool.
pub fn lines(out: &mut Vec<u8>, pools: &Pools) {
    for Pool { name, priority, failback, standing, .. } in &pools.list {
        let _ = write!(out, "  pool \"{}\": priority {priority}, failback {failback}, ", escaped(name));
        out.extend_from_slice(standing.as_str().as_bytes());
        let why = standing.to_string();
        if !why.is_empty() {
            let _ = write!(out, ", {why}");
        }
        out.push(b'\n');
    }
}

#[cfg(test)]
mod tests {
    use super::super::super::call::Call;
    use super::super::super::fake::{self, Fake, NOW, composed};
    use super::super::answer;
    use super::*;
    use crate::model::time::Seconds;

    /// The status of `app` in a form.
    fn status(format: &str, upstreams: &Fake) -> String {
        let call = format!("upstream=app&format={format}");
        let response = answer(&Call::get(&call), Some(upstreams), None).answer.response;
        assert_eq!(response.status, 200);
        crate::forms::fake::said(&response)
    }

    /// `app`, whose best pool waits, and whose worst has nothing.
    fn waiting() -> Fake {
        Fake::new(vec![composed(
            "app",
            &[
                ("pri\nmary", Standing::Waiting { left: Seconds(12) }),
                ("dr", Standing::Active),
                ("spare", Standing::Unavail { down: 1, unavail: 2, untried: 3 }),
            ],
        )])
    }

    /// `app`, none of whose pools has a usable server.
    fn nothing() -> Fake {
        Fake::new(vec![composed("app", &[("dr", Standing::Unavail { down: 0, unavail: 0, untried: 0 })])])
    }

    #[test]
    fn in_json() {
        let app = |pools: &str, active: &str| {
            format!(
                r#"{{"upstreams":{{"app":{{"zone":null,"method":"pools","dynamic":false,"reason":"{}","revision":0,"pools":[{pools}],"active":{active},"since":"{NOW}","peers":[]}}}}}}"#,
                "it has pools, whose servers can be changed"
            )
        };
        let pools = [
            r#"{"pool":"pri\nmary","priority":0,"failback":"0s","state":"waiting","why":"usable, failback in 12s"}"#,
            r#"{"pool":"dr","priority":10,"failback":"30s","state":"active"}"#,
            r#"{"pool":"spare","priority":20,"failback":"60s","state":"unavail","why":"no usable server: 1 down, 2 unavailable, 3 to be tried again"}"#,
        ];
        assert_eq!(status("json", &waiting()), app(&pools.join(","), "\"dr\""));
        let pool = r#"{"pool":"dr","priority":0,"failback":"0s","state":"unavail","why":"no servers"}"#;
        assert_eq!(status("json", &nothing()), app(pool, "null"));
    }

    #[test]
    fn in_text() {
        assert_eq!(
            status("text", &waiting()),
            format!(
                "upstream \"app\": pools, \"dr\" active since {NOW}\n  \
                 pool \"pri\\x0amary\": priority 0, failback 0s, waiting, usable, failback in 12s\n  \
                 pool \"dr\": priority 10, failback 30s, active\n  \
                 pool \"spare\": priority 20, failback 60s, unavail, no usable server: 1 down, 2 unavailable, 3 to be tried again\n"
            )
        );
        assert_eq!(
            status("text", &nothing()),
            format!(
                "upstream \"app\": pools, none active since {NOW}\n  \
                 pool \"dr\": priority 0, failback 0s, unavail, no servers\n"
            )
        );
    }

    #[test]
    fn as_metrics() {
        let page = status("prometheus", &waiting());
        let lines: Vec<_> = page.lines().filter(|line| !line.starts_with('#')).collect();
        let of = |metric: &str, values: [u8; 3]| {
            let pools = ["pri\\nmary", "dr", "spare"];
            let line = |(pool, value)| {
                format!("nginx_upstream_pool_{metric}{{upstream=\"app\",pool=\"{pool}\"}} {value}")
            };
            pools.into_iter().zip(values).map(line).collect::<Vec<_>>()
        };
        let mut wanted = vec![
            r#"nginx_upstream_info{upstream="app",zone="",method="pools",dynamic="false"} 1"#.to_owned(),
        ];
        wanted.extend(of("active", [0, 1, 0]));
        wanted.extend(of("usable", [1, 1, 0]));
        wanted.extend(of("priority", [0, 10, 20]));
        wanted.push(format!("nginx_upstream_pools_since_timestamp_seconds{{upstream=\"app\"}} {}", NOW.0));
        assert_eq!(lines, wanted);
        let page = answer(&Call::get("format=prometheus"), Some(&fake::fake()), None).answer.response.body;
        assert!(!String::from_utf8(page).unwrap().contains("pool"));
    }
}
