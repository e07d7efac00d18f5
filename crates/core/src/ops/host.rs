//! Which servers run on a host: for the host's own script, which does not know at which ports it is used, and under
//! which of its names.

use std::net::{IpAddr, Ipv6Addr};

use crate::model::address::{Address, DEFAULT_PORT};

/// A host, with a port if only the server there is meant.
struct HostPort<'a> {
    /// The host.
    host: Host<'a>,
    /// The port.
    port: Option<u16>,
}

/// What a host was called.
enum Host<'a> {
    /// Its address.
    Ip(IpAddr),
    /// Its name.
    Name(&'a str),
}

/// Whether a server with this text, at this address, is meant by `HOST`, `HOST:PORT` or `unix:/path`. A name means the
/// servers that were configured by it; it is not resolved.
pub fn is_of(wanted: &str, server: &str, address: &str) -> bool {
    if wanted.is_empty() {
        return false;
    }
    if wanted == server || wanted == address {
        return true;
    }
    match Address::parse(address) {
        Ok(Address::Unix(path)) => Address::parse(wanted) == Ok(Address::Unix(path)),
        Ok(Address::Ip(socket)) => place(wanted).is_some_and(|wanted| {
            let same_host = match wanted.host {
                Host::Ip(ip) => ip == socket.ip(),
                Host::Name(name) => place(server).is_some_and(
                    |server| matches!(server.host, Host::Name(other) if name.eq_ignore_ascii_case(other)),
                ),
            };
            same_host && wanted.port.is_none_or(|port| port == socket.port())
        }),
        Err(_) => false,
    }
}

/// Takes a text apart; none if it has no host. An IPv6 address may stand without brackets, as hosts print their own.
fn place(text: &str) -> Option<HostPort<'_>> {
    if let Ok(ip) = text.parse::<Ipv6Addr>() {
        return Some(HostPort { host: Host::Ip(ip.into()), port: None });
    }
    // With 0 for a default, an address without a port is refused, and one with a port is not.
    if let Ok(Address::Ip(socket)) = Address::parse_with_default_port(text, 0) {
        return Some(HostPort { host: Host::Ip(socket.ip()), port: Some(socket.port()) });
    }
    if let Ok(Address::Ip(socket)) = Address::parse_with_default_port(text, DEFAULT_PORT) {
        return Some(HostPort { host: Host::Ip(socket.ip()), port: None });
    }
    let (name, port) = match text.split_once(':') {
        Some((name, port)) => (name, Some(port.parse().ok()?)),
        None => (text, None),
    };
    // The dot at the end of a full name says nothing.
    let name = name.strip_suffix('.').unwrap_or(name);
    (!name.is_empty()).then_some(HostPort { host: Host::Name(name), port })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts() {
        let app = ("app.example.com:8081", "10.0.0.1:8081");
        let six = ("[2001:db8::1]:81", "[2001:db8::1]:81");
        let socket = ("unix:/run/a", "unix:/run/a");
        let table = [
            ("app.example.com", app, true),
            ("App.Example.COM.", app, true),
            ("app.example.com:8081", app, true),
            ("app.example.com:8082", app, false),
            ("app.example.com:", app, false),
            ("app.example", app, false),
            ("pp.example.com", app, false),
            ("10.0.0.1", app, true),
            ("10.0.0.1:8081", app, true),
            ("10.0.0.1:80", app, false),
            ("10.0.0.10", app, false),
            ("10.0.0", app, false),
            ("10.0.0.1:x", app, false),
            ("app", ("app", "10.0.0.1:80"), true),
            ("app:80", ("app", "10.0.0.1:80"), true),
            ("app:81", ("app", "10.0.0.1:80"), false),
            ("127.1", ("127.1:8081", "127.0.0.1:8081"), true),
            ("[2001:db8::1]", six, true),
            ("2001:db8::1", six, true),
            ("2001:DB8:0::1", six, true),
            ("[2001:db8:0::1]:81", six, true),
            ("[2001:db8::1]:82", six, false),
            ("[2001:db8::2]", six, false),
            ("unix:/run/a", socket, true),
            ("UNIX:/run/a", socket, true),
            ("unix:/run", socket, false),
            ("unix", socket, false),
            ("/run/a", socket, false),
            ("", app, false),
            (":8081", app, false),
            ("*", app, false),
        ];
        for (wanted, (server, address), matches) in table {
            assert_eq!(is_of(wanted, server, address), matches, "{wanted} {server} {address}");
        }
    }
}
