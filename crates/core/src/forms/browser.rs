//! Requests that browsers send: a page of any site can make a browser send one, and does not need to see the reply to
//! do harm by it.

use crate::model::hosts::Hosts;
use crate::model::query::quoted;
use crate::model::server_name::is_address;

use super::call::Call;
use super::error::{Kind, Refusal};

/// Whether a request may go on as far as browsers are concerned: those of programs may.
///
/// # Errors
///
/// Why it may not.
pub fn check(call: &Call<'_>, hosts: &Hosts) -> Result<(), Refusal> {
    if !is_browser(call) {
        return Ok(());
    }
    if !is_known(call.server, hosts) {
        let host = quoted(call.server);
        let text = format!(
            "host {host} refused: name it by \"server_name\" or \"upstream_control_host\", or use curl"
        );
        return Err(Refusal::new(Kind::UnknownHost, text));
    }
    if !is_of_this_site(call) {
        let text = "cross-site request refused: use curl, or send it by POST from a page of this site, \
                    or with the header \"X-Upstream-Control: 1\"";
        return Err(Refusal::new(Kind::CrossSite, text));
    }
    Ok(())
}

/// Whether a browser sent the request. Windows PowerShell says that it is one.
fn is_browser(call: &Call<'_>) -> bool {
    let by_name = call.user_agent.is_some_and(|agent| {
        let is_shell = agent.windows(b"PowerShell/".len()).any(|part| part == b"PowerShell/");
        (agent.starts_with(b"Mozilla/") || agent.starts_with(b"Opera/")) && !is_shell
    });
    by_name || call.fetch_site.is_some() || call.origin.is_some()
}

/// Whether the host is one that only this server has. A site can let its own name lead to the address of this server,
/// and its pages are pages of this site then, as far as the browser knows.
fn is_known(host: &[u8], hosts: &Hosts) -> bool {
    let is_own = |host| is_address(host) || host == "localhost" || hosts.has(host);
    hosts.is_empty() || str::from_utf8(host).is_ok_and(is_own)
}

/// Whether a page of this site, or the person at the browser, made it send the request. What the browser says best
/// decides: older ones, and those that use plain HTTP, do not say all of it. The header of our own cannot be sent by a
/// page of another site, since the browser asks by OPTIONS before.
fn is_of_this_site(call: &Call<'_>) -> bool {
    let is_own = |url| is_own(url, call.host);
    if call.permit == Some(b"1") {
        return true;
    }
    match (call.fetch_site, call.origin, call.referer) {
        (Some(b"same-origin" | b"none"), origin, _) => origin.is_none_or(is_own),
        (Some(_), _, _) => false,
        (None, Some(origin), _) => is_own(origin),
        (None, None, referer) => referer.is_some_and(is_own),
    }
}

/// Whether the authority of an `Origin` or a `Referer` is that of `host`. The scheme is not compared: TLS may end in
/// front of this nginx.
fn is_own(url: &[u8], host: &[u8]) -> bool {
    let (Ok(url), Ok(host)) = (str::from_utf8(url), str::from_utf8(host)) else {
        return false;
    };
    let (url, host) = (url.to_ascii_lowercase(), host.to_ascii_lowercase());
    let (rest, port) = match (url.strip_prefix("http://"), url.strip_prefix("https://")) {
        (Some(rest), _) => (rest, ":80"),
        (_, Some(rest)) => (rest, ":443"),
        _ => return false,
    };
    let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
    let without_port = |authority| str::strip_suffix(authority, port).unwrap_or(authority).to_owned();
    !authority.is_empty() && without_port(authority) == without_port(&host)
}

#[cfg(test)]
mod tests;
