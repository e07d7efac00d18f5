//! Who may change anything: the method, and the site that made a browser send the request.

use crate::http::Method;

use super::call::Call;
use super::error::{Kind, Refusal};
use super::settings::Methods;

/// Whether a control request may go on. All of them are held to this, also those that only list: what a request does is
/// known after its arguments were read.
///
/// # Errors
///
/// Why it may not.
pub fn control(call: &Call<'_>, methods: Methods) -> Result<(), Refusal> {
    let (allow, text) = match methods {
        Methods::Any => ("GET, POST", "only GET and POST allowed"),
        Methods::PostOnly => ("POST", "only POST allowed"),
    };
    let refuse = |text: &str| Err(Refusal::new(Kind::MethodNotAllowed { allow }, text));
    if call.is_subrequest {
        return refuse("subrequests are not allowed");
    }
    match (call.method, methods) {
        (Method::Post, _) | (Method::Get, Methods::Any) => {}
        _ => return refuse(text),
    }
    if is_cross_site(call) {
        return Err(Refusal::new(Kind::CrossSite, "cross-site request refused"));
    }
    Ok(())
}

/// Whether a status request may go on. Reading changes nothing, so that the site does not matter: a browser does not
/// show the reply to other sites.
///
/// # Errors
///
/// Why it may not.
pub fn status(call: &Call<'_>) -> Result<(), Refusal> {
    match call.method {
        Method::Get | Method::Head => Ok(()),
        Method::Post | Method::Other => {
            Err(Refusal::new(Kind::MethodNotAllowed { allow: "GET, HEAD" }, "only GET and HEAD allowed"))
        }
    }
}

/// Whether a browser says that a page of another site made it send the request. Programs that are no browsers send
/// neither header.
fn is_cross_site(call: &Call<'_>) -> bool {
    let by_site = call.fetch_site.is_some_and(|site| !matches!(site, b"none" | b"same-origin"));
    let by_origin = call.origin.is_some_and(|origin| !is_own_origin(origin, call.host));
    by_site || by_origin
}

/// Whether an `Origin` is that of `host`. The scheme is not compared: TLS may end in front of this nginx.
fn is_own_origin(origin: &[u8], host: &[u8]) -> bool {
    let (Ok(origin), Ok(host)) = (str::from_utf8(origin), str::from_utf8(host)) else {
        return false;
    };
    let (origin, host) = (origin.to_ascii_lowercase(), host.to_ascii_lowercase());
    let (authority, port) = match (origin.strip_prefix("http://"), origin.strip_prefix("https://")) {
        (Some(authority), _) => (authority, ":80"),
        (_, Some(authority)) => (authority, ":443"),
        _ => return false,
    };
    let without_port = |authority| str::strip_suffix(authority, port).unwrap_or(authority).to_owned();
    !authority.is_empty() && without_port(authority) == without_port(&host)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn methods() {
        let table = [
            (Method::Get, Methods::Any, None),
            (Method::Post, Methods::Any, None),
            (Method::Head, Methods::Any, Some(("GET, POST", "only GET and POST allowed"))),
            (Method::Other, Methods::Any, Some(("GET, POST", "only GET and POST allowed"))),
            (Method::Post, Methods::PostOnly, None),
            (Method::Get, Methods::PostOnly, Some(("POST", "only POST allowed"))),
            (Method::Head, Methods::PostOnly, Some(("POST", "only POST allowed"))),
        ];
        for (method, methods, wanted) in table {
            let call = Call { method, ..Call::get("") };
            let wanted = wanted
                .map_or(Ok(()), |(allow, text)| Err(Refusal::new(Kind::MethodNotAllowed { allow }, text)));
            assert_eq!(control(&call, methods), wanted, "{method:?} {methods:?}");
        }
    }

    #[test]
    fn subrequests_change_nothing_but_may_read() {
        let call = Call { is_subrequest: true, ..Call::get("") };
        assert_eq!(control(&call, Methods::Any).unwrap_err().kind.status(), 405);
        assert_eq!(status(&call), Ok(()));
    }

    #[test]
    fn reading_is_by_get_and_head_from_anywhere() {
        let cross =
            |method| Call { method, fetch_site: Some(b"cross-site"), origin: Some(b"null"), ..Call::get("") };
        assert_eq!(status(&cross(Method::Get)), Ok(()));
        assert_eq!(status(&cross(Method::Head)), Ok(()));
        assert_eq!(
            status(&cross(Method::Post)).unwrap_err().kind,
            Kind::MethodNotAllowed { allow: "GET, HEAD" }
        );
        assert!(status(&cross(Method::Other)).is_err());
    }

    #[test]
    fn sites() {
        let table: [(&str, Option<&str>, Option<&str>, bool); 23] = [
            // host, Sec-Fetch-Site, Origin, passes
            ("h", None, None, true),
            ("h", Some("none"), None, true),
            ("h", Some("same-origin"), None, true),
            ("h", Some("same-site"), None, false),
            ("h", Some("cross-site"), None, false),
            ("h", Some("news"), None, false),
            ("h", Some(""), None, false),
            ("h", Some("same-origin"), Some("http://evil"), false),
            ("h", Some("cross-site"), Some("http://h"), false),
            ("h", None, Some("http://h"), true),
            ("h", None, Some("https://H"), true),
            ("H:8080", None, Some("http://h:8080"), true),
            ("h:8080", None, Some("http://h"), false),
            ("h:8080", None, Some("http://h:8081"), false),
            ("h:80", None, Some("http://h"), true),
            ("h", None, Some("https://h:443"), true),
            ("h:443", None, Some("http://h"), false),
            ("[::1]:8080", None, Some("http://[::1]:8080"), true),
            ("h", None, Some("null"), false),
            ("h", None, Some(""), false),
            ("", None, Some("http://"), false),
            ("h", None, Some("ftp://h"), false),
            ("h", None, Some("http://h.evil"), false),
        ];
        for (host, fetch_site, origin, passes) in table {
            let call = Call {
                host: host.as_bytes(),
                fetch_site: fetch_site.map(str::as_bytes),
                origin: origin.map(str::as_bytes),
                ..Call::get("")
            };
            let found = control(&call, Methods::Any);
            assert_eq!(found.is_ok(), passes, "{host} {fetch_site:?} {origin:?}");
            if let Err(refusal) = found {
                assert_eq!(
                    (refusal.kind.status(), refusal.text.as_str()),
                    (403, "cross-site request refused")
                );
            }
        }
    }
}
