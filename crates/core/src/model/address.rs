//! The address of a server, as an operator writes it and as nginx shows it.
//!
//! The forms are those of the `server` directive that are addresses and not host names (`ngx_parse_url()` in
//! `src/core/ngx_inet.c`). Where nginx would ask the system's resolver about odd text (`1.2.3`, `010.0.0.1`), it is refused.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use super::query::quoted;

/// Longest port, in digits: nginx takes any number of leading zeroes, but no address is to be long.
const PORT_DIGITS: usize = 16;

/// The port of an address that is written without one: `default_port` of the `server` directive in http upstreams.
pub const DEFAULT_PORT: u16 = 80;

/// Most bytes of a unix socket's path: `sun_path` of `struct sockaddr_un` has 108 on Linux, and nginx keeps one for NUL.
pub const MAX_UNIX_PATH: usize = 107;

/// The prefix that marks a unix socket; nginx compares it without regard to case.
const UNIX_PREFIX: &str = "unix:";

/// Most bytes of a host name without its trailing dot (RFC 1035, 2.3.4, less the length bytes).
const MAX_HOST_NAME: usize = 253;

/// Most bytes of one label of a host name (RFC 1035, 2.3.4).
const MAX_LABEL: usize = 63;

/// The address of a server. Two addresses are equal if they name the same socket, however they were written.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Address {
    /// An IPv4 or IPv6 address with its port, 1..=65535 if it was parsed; an IPv6 one has no flow label and no scope.
    Ip(SocketAddr),
    /// The path of a unix socket, 1..=107 bytes, without white space and control characters.
    Unix(String),
}

/// Why a text is not an address; texts are stored as [`quoted`] returns them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AddressError {
    /// There is no text.
    Empty,
    /// The text holds a NUL, a control character or white space.
    InvalidCharacter(String),
    /// The text is a well-formed host name, with or without a port: an address in itself it is not.
    HostName(String),
    /// The text is a URL.
    Url(String),
    /// The port is not a number from 1 to 65535.
    InvalidPort(String),
    /// A bracket has no partner, or something stands where none may.
    Brackets(String),
    /// An IPv6 address without brackets, whose port could not be told from its last group.
    BareIpv6(String),
    /// An IPv6 address with a zone id, which nginx does not know.
    ZoneId(String),
    /// Neither an IPv4 nor an IPv6 address, nor a host name.
    InvalidIp(String),
    /// `unix:` without a path.
    UnixPathEmpty(String),
    /// The path of a unix socket is longer than [`MAX_UNIX_PATH`].
    UnixPathTooLong(String),
}

// === impl Address ===

impl Address {
    /// Parses an address; one without a port gets [`DEFAULT_PORT`].
    pub fn parse(text: &str) -> Result<Address, AddressError> {
        Address::parse_with_default_port(text, DEFAULT_PORT)
    }

    /// Parses an address; one without a port gets `default`, 1..=65535.
    ///
    /// A caller that moves a server to a new address gives the port that the server has. If `default` is 0, a port has to
    /// be written.
    pub fn parse_with_default_port(text: &str, default: u16) -> Result<Address, AddressError> {
        if text.is_empty() {
            return Err(AddressError::Empty);
        }
        if text.chars().any(|c| c.is_control() || c.is_whitespace()) {
            return Err(AddressError::InvalidCharacter(quoted(text.as_bytes())));
        }
        if let Some((prefix, path)) = text.split_at_checked(UNIX_PREFIX.len())
            && prefix.eq_ignore_ascii_case(UNIX_PREFIX)
        {
            return parse_unix(text, path);
        }
        if is_url(text) {
            return Err(AddressError::Url(quoted(text.as_bytes())));
        }
        match text.strip_prefix('[') {
            Some(rest) => parse_ipv6(text, rest, default),
            None => parse_ipv4(text, default),
        }
    }

    /// The port, or `None` for a unix socket.
    pub fn port(&self) -> Option<u16> {
        match self {
            Address::Ip(socket) => Some(socket.port()),
            Address::Unix(_) => None,
        }
    }
}

impl fmt::Display for Address {
    /// Writes nginx's canonical form (`ngx_sock_ntop()`): `127.0.0.1:80`, `[::1]:80`, `unix:/path`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Address::Ip(socket) => match socket.ip() {
                IpAddr::V4(ip) => write!(f, "{ip}:{}", socket.port()),
                IpAddr::V6(ip) => match embedded_ipv4(ip) {
                    Some(ipv4) => write!(f, "[::{ipv4}]:{}", socket.port()),
                    None => write!(f, "[{ip}]:{}", socket.port()),
                },
            },
            Address::Unix(path) => write!(f, "{UNIX_PREFIX}{path}"),
        }
    }
}

// === impl AddressError ===

impl fmt::Display for AddressError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (text, reason) = match self {
            AddressError::Empty => return f.write_str("empty address"),
            AddressError::HostName(text) => {
                return write!(f, "host name {text} where an address is needed");
            }
            AddressError::InvalidCharacter(text) => (text, "white space or control character"),
            AddressError::Url(text) => (text, "a URL, where HOST:PORT is needed"),
            AddressError::InvalidPort(text) => (text, "port must be between 1 and 65535"),
            AddressError::Brackets(text) => (text, "unbalanced brackets"),
            AddressError::BareIpv6(text) => (text, "an ipv6 address needs brackets"),
            AddressError::ZoneId(text) => (text, "ipv6 zone ids are not supported"),
            AddressError::InvalidIp(text) => (text, "not an ip address"),
            AddressError::UnixPathEmpty(text) => (text, "no path in the unix domain socket"),
            AddressError::UnixPathTooLong(text) => (text, "too long path in the unix domain socket"),
        };
        write!(f, "invalid address {text}: {reason}")
    }
}

impl std::error::Error for AddressError {}

/// Whether a text is a URL, which is no address whatever its host is.
pub fn is_url(text: &str) -> bool {
    text.contains("://")
}

/// Whether two texts name the same server: the case of letters matters in the path of a unix socket only, as in nginx.
pub fn is_same(one: &[u8], other: &[u8]) -> bool {
    let parts = one.split_at_checked(UNIX_PREFIX.len()).zip(other.split_at_checked(UNIX_PREFIX.len()));
    match parts {
        Some(((prefix, path), (_, other_path))) if prefix.eq_ignore_ascii_case(UNIX_PREFIX.as_bytes()) => {
            path == other_path && one.eq_ignore_ascii_case(other)
        }
        _ => one.eq_ignore_ascii_case(other),
    }
}

/// A text that is the same for all texts of a server, as [`is_same`] compares them.
pub fn folded(text: &str) -> String {
    let is_unix = text.get(..UNIX_PREFIX.len()).is_some_and(|text| text.eq_ignore_ascii_case(UNIX_PREFIX));
    if is_unix { text.to_owned() } else { text.to_ascii_lowercase() }
}

/// Parses what follows `unix:` in `text`.
fn parse_unix(text: &str, path: &str) -> Result<Address, AddressError> {
    match path.len() {
        0 => Err(AddressError::UnixPathEmpty(quoted(text.as_bytes()))),
        1..=MAX_UNIX_PATH => Ok(Address::Unix(path.to_owned())),
        _ => Err(AddressError::UnixPathTooLong(quoted(text.as_bytes()))),
    }
}

/// Parses `text`, of which `rest` follows the opening bracket.
fn parse_ipv6(text: &str, rest: &str, default: u16) -> Result<Address, AddressError> {
    let shown = || quoted(text.as_bytes());
    let Some((host, after)) = rest.split_once(']') else {
        return Err(AddressError::Brackets(shown()));
    };
    if host.contains('[') || after.contains(['[', ']']) {
        return Err(AddressError::Brackets(shown()));
    }
    if host.contains('%') {
        return Err(AddressError::ZoneId(shown()));
    }
    let Ok(ip) = host.parse::<Ipv6Addr>() else {
        return Err(AddressError::InvalidIp(shown()));
    };
    let port = match after.strip_prefix(':') {
        Some(port) => parse_port(port),
        None if after.is_empty() => Some(default).filter(|&port| port > 0),
        None => None,
    };
    match port {
        Some(port) => Ok(Address::Ip(SocketAddr::from((ip, port)))),
        None => Err(AddressError::InvalidPort(shown())),
    }
}

/// Parses `text`, which does not begin with a bracket, and finds out what it is if it is no address.
fn parse_ipv4(text: &str, default: u16) -> Result<Address, AddressError> {
    let shown = || quoted(text.as_bytes());
    if text.contains(['[', ']']) {
        return Err(AddressError::Brackets(shown()));
    }
    // The first colon ends the host, as in ngx_parse_inet_url(); a second one is the mark of an IPv6 address.
    let (host, port) = match text.split_once(':') {
        Some((host, port)) => (host, Some(port)),
        None => (text, None),
    };
    if port.is_some_and(|port| port.contains(':')) {
        let (address, zone) = match text.split_once('%') {
            Some((address, _)) => (address, true),
            None => (text, false),
        };
        if address.parse::<Ipv6Addr>().is_ok() {
            return Err(match zone {
                true => AddressError::ZoneId(shown()),
                false => AddressError::BareIpv6(shown()),
            });
        }
    }
    let port = match port {
        Some(port) => parse_port(port),
        None => Some(default).filter(|&port| port > 0),
    };
    if let Ok(ip) = host.parse::<Ipv4Addr>() {
        return match port {
            Some(port) => Ok(Address::Ip(SocketAddr::from((ip, port)))),
            None => Err(AddressError::InvalidPort(shown())),
        };
    }
    if !is_host_name(host) {
        return Err(AddressError::InvalidIp(shown()));
    }
    match port {
        Some(_) => Err(AddressError::HostName(shown())),
        None => Err(AddressError::InvalidPort(shown())),
    }
}

/// The port of its decimal digits, 1..=65535. Leading zeros are taken, as `ngx_atoi()` takes them; signs are not.
fn parse_port(text: &str) -> Option<u16> {
    let is_number = text.len() <= PORT_DIGITS && text.bytes().all(|byte| byte.is_ascii_digit());
    text.parse().ok().filter(|&port| is_number && port > 0)
}

/// Whether text can be a host name: labels of letters, digits, `-` and `_`, with dots between them, one dot at the end.
///
/// Text whose last label is a number is none: the system's resolver would read it as an IPv4 address in a form that
/// nobody expects (`127.1`, `0x7f.0.0.1`), as the WHATWG URL Standard, 3.5, explains.
fn is_host_name(text: &str) -> bool {
    let name = text.strip_suffix('.').unwrap_or(text);
    let last = name.rsplit('.').next().unwrap_or_default();
    let is_hexadecimal = last
        .strip_prefix("0x")
        .or_else(|| last.strip_prefix("0X"))
        .is_some_and(|digits| digits.bytes().all(|byte| byte.is_ascii_hexdigit()));
    let is_number = is_hexadecimal || last.bytes().all(|byte| byte.is_ascii_digit());
    name.len() <= MAX_HOST_NAME && !is_number && name.split('.').all(is_label)
}

/// Whether text is one label of a host name; underscores are taken because names of containers have them.
fn is_label(text: &str) -> bool {
    (1..=MAX_LABEL).contains(&text.len())
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_')
}

/// The IPv4 address that nginx writes at the end of an IPv6 address where Rust writes hexadecimal groups.
///
/// `ngx_inet6_ntop()` shows `::102:304` as `::1.2.3.4`, and `::102` as `::0.0.1.2` unless its upper byte is 0 or its lower
/// byte is 1. The form `::ffff:1.2.3.4` is the same in both and not reported here.
fn embedded_ipv4(ip: Ipv6Addr) -> Option<Ipv4Addr> {
    let [.., a, b, c, d] = ip.octets();
    let is_dotted = match ip.segments() {
        [0, 0, 0, 0, 0, 0, 0, _] => c != 0 && d != 1,
        [0, 0, 0, 0, 0, 0, _, _] => true,
        _ => false,
    };
    is_dotted.then(|| Ipv4Addr::new(a, b, c, d))
}

#[cfg(test)]
mod tests {
    use std::fmt::Write as _;

    use super::super::query::random::Random;
    use super::*;

    /// The canonical form of an address, or the message of its error.
    fn outcome(text: &str) -> String {
        match Address::parse(text) {
            Ok(address) => address.to_string(),
            Err(error) => error.to_string(),
        }
    }

    #[test]
    fn accepted() {
        let longest = format!("unix:{}", "p".repeat(MAX_UNIX_PATH));
        for (text, canonical) in [
            ("127.0.0.1", "127.0.0.1:80"),
            ("127.0.0.1:8080", "127.0.0.1:8080"),
            ("127.0.0.1:1", "127.0.0.1:1"),
            ("127.0.0.1:65535", "127.0.0.1:65535"),
            ("127.0.0.1:0081", "127.0.0.1:81"),
            ("0.0.0.0:1", "0.0.0.0:1"),
            ("[::1]", "[::1]:80"),
            ("[::1]:8080", "[::1]:8080"),
            ("[0:0:0:0:0:0:0:1]:80", "[::1]:80"),
            ("[2001:DB8:0:0:1:0:0:1]", "[2001:db8::1:0:0:1]:80"),
            ("[1:0:2:3:4:5:6:7]", "[1:0:2:3:4:5:6:7]:80"),
            ("[::ffff:1.2.3.4]:81", "[::ffff:1.2.3.4]:81"),
            ("[::]", "[::]:80"),
            // What ngx_inet6_ntop() makes of addresses that begin with 96 zero bits.
            ("[::1.2.3.4]", "[::1.2.3.4]:80"),
            ("[::102:304]", "[::1.2.3.4]:80"),
            ("[::102]", "[::0.0.1.2]:80"),
            ("[::201]", "[::201]:80"),
            ("[::2]", "[::2]:80"),
            ("unix:/run/a.sock", "unix:/run/a.sock"),
            ("UNIX:a:b", "unix:a:b"),
            (longest.as_str(), longest.as_str()),
        ] {
            assert_eq!(outcome(text), canonical);
            assert_eq!(Address::parse(canonical), Address::parse(text));
        }
    }

    #[test]
    fn texts_of_the_same_server() {
        for (one, other, same) in [
            ("App.example:80", "app.EXAMPLE:80", true),
            ("app", "ap", false),
            ("unix", "UNIX", true),
            ("unix:/run/a", "UNIX:/run/a", true),
            ("unix:/run/a", "unix:/run/A", false),
            ("unix:", "unix", false),
        ] {
            assert_eq!(is_same(one.as_bytes(), other.as_bytes()), same, "{one} {other}");
        }
        assert_eq!(folded("App.example:80"), "app.example:80");
        assert_eq!(folded("unix:/run/A"), "unix:/run/A");
    }

    #[test]
    fn refused() {
        for (reason, texts) in [
            (
                "port must be between 1 and 65535",
                "127.0.0.1:|127.0.0.1:0|127.0.0.1:65536|127.0.0.1:+80|127.0.0.1:-1|127.0.0.1:8O|127.0.0.1:80:80|\
                 127.0.0.1:99999999999999999999|127.0.0.1:80/x|[::1]:|[::1]:0|[::1]:65536|[::1]80|[::1].|\
                 a.example:0|a.example:x",
            ),
            (
                "not an ip address",
                "127.0.0|1.2.3|127.1|1.2.3.4.|1.2.3.4.5|256.0.0.1|01.2.3.4|127.0.0.01|1..2.3|0x7f.0.0.1|0x7f000001|\
                 2130706433|8080|a.8|127.0.0.1%1|[]|[127.0.0.1]|[::1::]|[:::1]|[12345::]|[a.example]|:|:80|*:80|.|\
                 a..b|.a|a.example..|a/b|a;b|$a|\u{e9}.example",
            ),
            ("a URL, where HOST:PORT is needed", "http://127.0.0.1|https://[::1]:80/|h://"),
            ("unbalanced brackets", "[|]|[::1|::1]|[[::1]]|[::1]]:80|[::1]:[80|127.0.0.1]|a[b|[::1:80"),
            ("an ipv6 address needs brackets", "::1|::|fe80::1|1:2:3:4:5:6:7:8|::1.2.3.4"),
            ("ipv6 zone ids are not supported", "[fe80::1%eth0]|[fe80::1%1]:80|fe80::1%eth0"),
            (
                "white space or control character",
                " 127.0.0.1|127.0.0.1 |127.0.0.1:80 weight=1|127.0.0.1\0|127.0.0.1\n|\t|[::1\u{7f}]|unix:/a b|\
                 unix:/a\0b|unix:/\u{85}|\u{a0}|a.example\r\n",
            ),
            ("no path in the unix domain socket", "unix:|Unix:"),
        ] {
            for text in texts.split('|') {
                let expected = format!("invalid address {}: {reason}", quoted(text.as_bytes()));
                assert_eq!(outcome(text), expected);
            }
        }
        assert_eq!(outcome(""), "empty address");
        let long = outcome(&format!("unix:{}", "p".repeat(MAX_UNIX_PATH + 1)));
        assert!(long.ends_with("...\": too long path in the unix domain socket"));
    }

    #[test]
    fn host_names_are_told_apart() {
        let is_host_name = |text: &str| matches!(Address::parse(text), Err(AddressError::HostName(_)));
        for text in "localhost|a.example|a.example.|a-b_c.example:8080|1.example|0xfg|a|8080a|unix".split('|')
        {
            assert!(is_host_name(text), "{text}");
        }
        for text in [&"a".repeat(64), &"a.".repeat(128), "a.example:0", "1.2.3", ""] {
            assert!(!is_host_name(text), "{text}");
        }
        let message = outcome("a.example");
        assert_eq!(message, "host name \"a.example\" where an address is needed");
    }

    #[test]
    fn ports() {
        let address = Address::parse_with_default_port("10.0.0.1", 8080);
        assert_eq!(address, Address::parse("10.0.0.1:8080"));
        assert_eq!(Address::parse_with_default_port("[::1]:81", 8080), Address::parse("[::1]:81"));
        for text in ["10.0.0.1", "[::1]"] {
            assert!(matches!(Address::parse_with_default_port(text, 0), Err(AddressError::InvalidPort(_))));
        }
        assert_eq!(Address::parse_with_default_port("unix:/a", 0), Address::parse("unix:/a"));
    }

    /// What Rust's own parsers say about a text; `None` where the text is refused.
    fn model(text: &str) -> Option<Address> {
        if let Some(path) = text.get(5..).filter(|_| text.to_ascii_lowercase().starts_with("unix:")) {
            let is_clean = !path.contains(|c: char| c.is_whitespace() || c.is_control());
            return (is_clean && (1..108).contains(&path.len())).then(|| Address::Unix(path.to_owned()));
        }
        if text.contains('%') {
            return None;
        }
        let ip = text.strip_prefix('[').and_then(|rest| rest.strip_suffix(']'));
        let socket = match text.parse::<SocketAddr>() {
            Ok(socket) => Some(socket),
            Err(_) => match (text.parse::<Ipv4Addr>(), ip.map(str::parse::<Ipv6Addr>)) {
                (Ok(ip), _) => Some(SocketAddr::from((ip, 80))),
                (_, Some(Ok(ip))) => Some(SocketAddr::from((ip, 80))),
                _ => None,
            },
        };
        let port = text.rsplit_once(':').map_or(0, |(_, port)| port.len());
        let is_short = text.ends_with(']') || port <= PORT_DIGITS;
        socket.filter(|socket| socket.port() > 0 && is_short).map(Address::Ip)
    }

    /// A million texts: known addresses written in several ways, and damaged ones.
    #[test]
    fn random_addresses() {
        let mut random = Random::new(0x6164_6472);
        let seeds: Vec<&str> = "127.0.0.1:80|10.255.0.1|[::1]:80|[2001:db8::1.2.3.4]:65535|[::ffff:1.2.3.4]|\
            [1:2:3:4:5:6:7:8]|[fe80::1%1]:80|::1|unix:/a.sock|UNIX:/b|localhost:8080"
            .split('|')
            .collect();
        let (mut text, mut bytes) = (String::new(), Vec::new());
        for _ in 0..1_000_000 {
            text.clear();
            let known = match random.below(8) {
                0 => {
                    let ip = Ipv4Addr::from_bits(random.next() as u32);
                    let port = (random.next() as u16).max(1);
                    assert!(write!(text, "{ip}:{port}").is_ok());
                    Some(SocketAddr::from((ip, port)))
                }
                1 => {
                    // Groups of few values, so that runs of zeros and embedded IPv4 addresses come up.
                    let mut groups = [0u16; 8];
                    for group in &mut groups {
                        *group = random.pick(&[0, 0, 0, 0, 1, 0x102, 0xffff, 0xab00]);
                    }
                    let ip = Ipv6Addr::from(groups);
                    let [a, b, c, d, e, f, g, h] = groups;
                    let written = match random.below(2) {
                        0 => write!(text, "[{ip}]:81"),
                        _ => write!(text, "[{a:x}:{b:04X}:{c:x}:{d:x}:{e:x}:{f:x}:{g:x}:{h:03x}]:081"),
                    };
                    assert!(written.is_ok());
                    Some(SocketAddr::from((ip, 81)))
                }
                _ => {
                    bytes.clear();
                    bytes.extend_from_slice(random.pick(&seeds).as_bytes());
                    random.mutate(&mut bytes, b"0123456789abf:::...[]%-+ \0\n/x\xc3\xa9");
                    text.push_str(&String::from_utf8_lossy(&bytes));
                    None
                }
            };
            let address = Address::parse(&text).ok();
            assert_eq!(address, model(&text), "{text:?}");
            assert!(known.is_none() || address == known.map(Address::Ip), "{text:?}");
            if let Some(address) = address {
                text.clear();
                assert!(write!(text, "{address}").is_ok());
                assert_eq!(Address::parse(&text).ok().as_ref(), Some(&address));
            }
        }
    }
}
