//! Who may change anything: the client itself, by these methods, and not a page of another site.

use crate::http::Method;

use super::browser;
use super::call::Call;
use super::error::{Kind, Refusal};
use super::settings::{Methods, Settings};

/// Whether a control request may go on. All of them are held to this, also those that only list: what a request does is
/// known after its arguments were read.
///
/// # Errors
///
/// Why it may not.
pub fn control(call: &Call<'_>, settings: &Settings) -> Result<(), Refusal> {
    let (allow, text) = match settings.methods {
        Methods::Any => ("GET, POST", "only GET and POST allowed"),
        Methods::PostOnly => ("POST", "only POST allowed"),
    };
    let refuse = |text: &str| Err(Refusal::new(Kind::MethodNotAllowed { allow }, text));
    if call.is_subrequest {
        return refuse("subrequests are not allowed");
    }
    if call.is_of_proxied_reply {
        let text = "the reply of a proxied server led here (X-Accel-Redirect or error_page), which may change nothing";
        return Err(Refusal::new(Kind::ProxiedReply, text));
    }
    match (call.method, settings.methods) {
        (Method::Post, _) | (Method::Get, Methods::Any) => {}
        _ => return refuse(text),
    }
    browser::check(call, &settings.hosts)
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
        _ => Err(Refusal::new(Kind::MethodNotAllowed { allow: "GET, HEAD" }, "only GET and HEAD allowed")),
    }
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
            (Method::Put, Methods::Any, Some(("GET, POST", "only GET and POST allowed"))),
            (Method::Patch, Methods::Any, Some(("GET, POST", "only GET and POST allowed"))),
            (Method::Delete, Methods::Any, Some(("GET, POST", "only GET and POST allowed"))),
            (Method::Other, Methods::Any, Some(("GET, POST", "only GET and POST allowed"))),
            (Method::Post, Methods::PostOnly, None),
            (Method::Get, Methods::PostOnly, Some(("POST", "only POST allowed"))),
            (Method::Head, Methods::PostOnly, Some(("POST", "only POST allowed"))),
            (Method::Delete, Methods::PostOnly, Some(("POST", "only POST allowed"))),
        ];
        for (method, methods, wanted) in table {
            let call = Call { method, ..Call::get("") };
            let settings = Settings { methods, ..Settings::default() };
            let wanted = wanted
                .map_or(Ok(()), |(allow, text)| Err(Refusal::new(Kind::MethodNotAllowed { allow }, text)));
            assert_eq!(control(&call, &settings), wanted, "{method:?} {methods:?}");
        }
    }

    #[test]
    fn subrequests_change_nothing_but_may_read() {
        let call = Call { is_subrequest: true, ..Call::get("") };
        assert_eq!(control(&call, &Settings::default()).unwrap_err().kind.status(), 405);
        assert_eq!(status(&call), Ok(()));
    }

    #[test]
    fn proxied_replies_change_nothing_but_may_lead_to_a_status() {
        let call = Call { is_of_proxied_reply: true, ..Call::get("") };
        assert_eq!(control(&call, &Settings::default()).unwrap_err().kind, Kind::ProxiedReply);
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
        for method in [Method::Put, Method::Patch, Method::Delete, Method::Other] {
            assert!(status(&cross(method)).is_err(), "{method:?}");
        }
    }
}
