use super::*;
use crate::model::server_name::ServerName;

/// What a browser says of itself.
const FIREFOX: &str = "Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0";

/// The status of the refusal, or 200.
fn status(call: &Call<'_>, hosts: &Hosts) -> u16 {
    check(call, hosts).map_or_else(|refusal| refusal.kind.status(), |()| 200)
}

/// A GET with these headers.
fn call<'a>(headers: &[(&str, &'a str)]) -> Call<'a> {
    let mut call = Call::get("");
    for (name, value) in headers {
        let value = value.as_bytes();
        match *name {
            "host" => {
                call.host = value;
                call.server = value.strip_suffix(b":8080").unwrap_or(value);
            }
            "agent" => call.user_agent = Some(value),
            "site" => call.fetch_site = Some(value),
            "origin" => call.origin = Some(value),
            "referer" => call.referer = Some(value),
            "permit" => call.permit = Some(value),
            name => panic!("{name}"),
        }
    }
    call
}

#[test]
fn programs_and_browsers() {
    let table = [
        // A browser is refused without more.
        (None, 200),
        (Some(""), 200),
        (Some("curl/8.5.0"), 200),
        (Some("Wget/1.21.3"), 200),
        (Some("python-requests/2.32"), 200),
        (Some("lua-resty-http/0.17 (Lua) ngx_lua/10026"), 200),
        (Some("mozilla/5.0"), 200),
        (Some(" Mozilla/5.0"), 200),
        (Some("Mozilla"), 200),
        (Some("like Mozilla/5.0"), 200),
        (Some("Mozilla/5.0 (Windows NT; Windows NT 10.0; de-DE) WindowsPowerShell/5.1.19041.1"), 200),
        (Some("Mozilla/5.0 (Linux; Debian 12; en-US) PowerShell/7.4.1"), 200),
        (Some("Mozilla/5.0 powershell/7"), 403),
        (Some("Mozilla/5.0 PowerShell"), 403),
        (Some("Mozilla/"), 403),
        (Some(FIREFOX), 403),
        (Some("Opera/9.80 (Windows NT 6.1) Presto/2.12"), 403),
    ];
    for (agent, wanted) in table {
        let headers = agent.map(|agent| ("agent", agent));
        assert_eq!(status(&call(headers.as_slice()), &Hosts::default()), wanted, "{agent:?}");
    }
    for (header, value) in [("site", ""), ("site", "cross-site"), ("origin", ""), ("origin", "null")] {
        assert_eq!(status(&call(&[(header, value)]), &Hosts::default()), 403, "{header}: {value}");
    }
    for (header, value) in [("referer", "http://evil/"), ("permit", "0")] {
        assert_eq!(
            status(&call(&[(header, value)]), &Hosts::default()),
            200,
            "no other header tells: {header}"
        );
    }
}

#[test]
fn sites() {
    let table: &[(&[(&str, &str)], u16)] = &[
        // What the browser says of the site decides where it says it.
        (&[("site", "same-origin")], 200),
        (&[("site", "none")], 200),
        (&[("site", "same-site")], 403),
        (&[("site", "cross-site")], 403),
        (&[("site", "Same-Origin")], 403),
        (&[("site", "news")], 403),
        (&[("site", "same-origin"), ("origin", "http://localhost")], 200),
        (&[("site", "same-origin"), ("origin", "http://evil")], 403),
        (&[("site", "none"), ("origin", "null")], 403),
        (&[("site", "same-origin"), ("origin", "null"), ("referer", "http://localhost/")], 403),
        (&[("site", "same-origin"), ("referer", "http://evil/")], 200),
        (&[("site", "cross-site"), ("origin", "http://localhost")], 403),
        (&[("site", "cross-site"), ("referer", "http://localhost/")], 403),
        // Else the origin,
        (&[("origin", "http://localhost")], 200),
        (&[("origin", "null")], 403),
        (&[("origin", "http://evil")], 403),
        (&[("origin", "null"), ("referer", "http://localhost/")], 403),
        (&[("origin", "http://localhost"), ("referer", "http://evil/")], 200),
        // else the page,
        (&[("referer", "http://localhost/upstreamstatus?a=b")], 200),
        (&[("referer", "http://localhost")], 200),
        (&[("referer", "https://LOCALHOST#x")], 200),
        (&[("referer", "http://localhost:81/")], 403),
        (&[("referer", "http://evil/http://localhost/")], 403),
        (&[("referer", "http://evil?http://localhost/")], 403),
        (&[("referer", "http://localhost@evil/")], 403),
        (&[("referer", "http://evil@localhost/")], 403),
        (&[("referer", "http://localhost.evil/")], 403),
        (&[("referer", "")], 403),
        (&[("referer", "about:blank")], 403),
        (&[("referer", "/upstreamstatus")], 403),
        // and the header in any case.
        (&[("permit", "1")], 200),
        (&[("permit", "1"), ("site", "cross-site"), ("origin", "null")], 200),
        (&[("permit", "0")], 403),
        (&[("permit", "")], 403),
        (&[("permit", "11")], 403),
    ];
    for (headers, wanted) in table {
        let mut call = call(headers);
        call.user_agent = Some(FIREFOX.as_bytes());
        assert_eq!(status(&call, &Hosts::default()), *wanted, "{headers:?}");
    }
}

#[test]
fn authorities() {
    let table = [
        // host, origin, passes
        ("h", "http://h", true),
        ("h", "https://H", true),
        ("H:8080", "http://h:8080", true),
        ("h:8080", "http://h", false),
        ("h:8080", "http://h:8081", false),
        ("h:80", "http://h", true),
        ("h", "http://h:80", true),
        ("h", "https://h:443", true),
        ("h:443", "http://h", false),
        ("[::1]:8080", "http://[::1]:8080", true),
        ("[::1]", "http://[::1]:8080", false),
        ("h.", "http://h.", true),
        ("h", "", false),
        ("", "http://", false),
        ("h", "ftp://h", false),
        ("h", "h", false),
        ("h", "http://h.evil", false),
    ];
    for (host, origin, passes) in table {
        let call = call(&[("host", host), ("origin", origin)]);
        assert_eq!(check(&call, &Hosts::default()).is_ok(), passes, "{host} {origin}");
    }
}

#[test]
fn hosts() {
    let named =
        Hosts::new(["lb.example", "*.lb.example"].map(|name| ServerName::parse(name).unwrap()).into());
    let table = [
        // host, whether it is known where names are known, and where none is
        ("lb.example", 200, 200),
        ("a.lb.example", 200, 200),
        ("lb.example:8080", 200, 200),
        ("localhost", 200, 200),
        ("127.0.0.1:8080", 200, 200),
        ("[::1]:8080", 200, 200),
        ("evil.example", 403, 200),
        ("lb.example.evil", 403, 200),
        ("localhost.evil", 403, 200),
        ("127.0.0.1.evil", 403, 200),
        ("", 403, 200),
    ];
    for (host, with_names, without) in table {
        // Its pages may send any header to a host of its own.
        for headers in [[("host", host), ("permit", "1")], [("host", host), ("site", "same-origin")]] {
            let call = Call { user_agent: Some(FIREFOX.as_bytes()), ..call(&headers) };
            assert_eq!(status(&call, &named), with_names, "{headers:?}");
            assert_eq!(status(&call, &Hosts::default()), without, "{headers:?}");
        }
        assert_eq!(status(&call(&[("host", host)]), &named), 200, "a program asks for {host}");
    }
}

#[test]
fn words_of_refusals() {
    let named = Hosts::new(vec![ServerName::Host("lb".to_owned())]);
    let text = |call: &Call<'_>| check(call, &named).unwrap_err().text;
    let foreign = text(&call(&[("host", "lb"), ("site", "cross-site")]));
    for word in ["cross-site request refused", "curl", "POST", "\"X-Upstream-Control: 1\""] {
        assert!(foreign.contains(word), "{foreign}");
    }
    let host = text(&call(&[("host", "evil:8080"), ("site", "cross-site")]));
    assert!(host.contains("\"evil\"") && host.contains("upstream_control_host"), "{host}");
}
