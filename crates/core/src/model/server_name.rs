//! Names of servers, as nginx's directive `server_name` takes them, but for regular expressions.

use std::net::{Ipv4Addr, Ipv6Addr};

/// A name that hosts are compared with. All its letters are small.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ServerName {
    /// `example.com`: this host.
    Host(String),
    /// `*.example.com`: all hosts below this one, which is kept with the dot before it.
    Below(String),
    /// `.example.com`: this host, and all below it; kept with the dot.
    HostAndBelow(String),
    /// `www.example.*`: all hosts that begin so; kept with the dot at its end.
    Beginning(String),
}

impl ServerName {
    /// The name that a word of the directive is; none for a word that no host has: an empty one, or one with an asterisk
    /// where nginx takes none.
    pub fn parse(word: &str) -> Option<Self> {
        let word = word.to_ascii_lowercase();
        let (plain, kind): (&str, fn(String) -> Self) = match (word.strip_prefix('*'), word.strip_suffix('*'))
        {
            (Some(below), None) => (below, Self::Below),
            (None, Some(beginning)) => (beginning, Self::Beginning),
            (None, None) if word.starts_with('.') => (&word, Self::HostAndBelow),
            (None, None) => (&word, Self::Host),
            (Some(_), Some(_)) => return None,
        };
        let name = kind(plain.to_owned());
        let has_dot = match &name {
            Self::Host(_) => true,
            Self::Below(rest) | Self::HostAndBelow(rest) => rest.starts_with('.'),
            Self::Beginning(rest) => rest.ends_with('.'),
        };
        let is_name = has_dot && !plain.contains('*') && !plain.trim_matches('.').is_empty();
        is_name.then_some(name)
    }

    /// Whether the name is that of a host, which is written in small letters, without port and without a dot at its end.
    pub fn is_of(&self, host: &str) -> bool {
        match self {
            Self::Host(name) => host == name,
            Self::Below(rest) => is_below(host, rest),
            Self::HostAndBelow(rest) => is_below(host, rest) || rest.strip_prefix('.') == Some(host),
            Self::Beginning(rest) => host.strip_prefix(rest.as_str()).is_some_and(|end| !end.is_empty()),
        }
    }
}

/// Whether a host ends in this, and has something before it.
fn is_below(host: &str, rest: &str) -> bool {
    host.strip_suffix(rest).is_some_and(|beginning| !beginning.is_empty())
}

/// Whether a host, written in the same way, is an address: `127.0.0.1` or `[::1]`. The name system has no part in
/// reaching it.
pub fn is_address(host: &str) -> bool {
    let literal = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
    match literal {
        Some(literal) => literal.parse::<Ipv6Addr>().is_ok(),
        None => host.parse::<Ipv4Addr>().is_ok(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names() {
        let table: [(&str, &[&str], &[&str]); 7] = [
            // name, hosts that have it, hosts that do not
            ("example.com", &["example.com"], &["a.example.com", "example.com.evil", "example.co", ""]),
            ("Example.COM", &["example.com"], &["xample.com"]),
            (
                "*.example.com",
                &["a.example.com", "a.b.example.com"],
                &["example.com", ".example.com", "aexample.com"],
            ),
            (".example.com", &["example.com", "a.example.com"], &["aexample.com", ".example.com", "com"]),
            (
                "www.example.*",
                &["www.example.com", "www.example.co.uk"],
                &["www.example.", "www.example", "www.examples.x"],
            ),
            ("_", &["_"], &["a", "localhost"]),
            ("10.0.0.1", &["10.0.0.1"], &["10.0.0.10"]),
        ];
        for (word, hosts, others) in table {
            let name = ServerName::parse(word).unwrap();
            for host in hosts {
                assert!(name.is_of(host), "{word} {host}");
            }
            for host in others {
                assert!(!name.is_of(host), "{word} {host}");
            }
        }
    }

    #[test]
    fn words_that_are_no_names() {
        for word in ["", "*", "**", ".", "*.", ".*", "..", "*example.com", "www*", "a.*.b", "*.a.*", "*.a*b"]
        {
            assert_eq!(ServerName::parse(word), None, "{word}");
        }
    }

    #[test]
    fn addresses() {
        for host in ["127.0.0.1", "0.0.0.0", "[::1]", "[2001:db8::1]", "[::ffff:10.0.0.1]"] {
            assert!(is_address(host), "{host}");
        }
        for host in [
            "",
            "localhost",
            "::1",
            "[127.0.0.1]",
            "[::1",
            "::1]",
            "[]",
            "127.1",
            "127.0.0.1.evil",
            "a.127.0.0.1",
        ] {
            assert!(!is_address(host), "{host}");
        }
    }
}
