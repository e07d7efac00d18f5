//! The lines in which servers are listed as text.

use crate::model::log::escaped;
use crate::model::params::{PARAMS, Param};
use crate::model::pools::{Pool, Pools};
use crate::model::snapshot::Peer;
use crate::model::state::Admin;

use super::super::peer::is_down;

/// How much a line says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Style {
    /// Server and address, as ngx_dynamic_upstream lists them.
    Plain,
    /// The parameters also, as its `verbose=` does.
    Verbose,
    /// Address and id, as NGINX Plus's `upstream_conf` does.
    Numbered,
}

/// Bytes of a line, at a guess.
const LINE: usize = 112;

/// The lines of some peers.
pub fn listing<'a>(peers: impl IntoIterator<Item = &'a Peer>, style: Style) -> String {
    let peers = peers.into_iter();
    let mut text = String::with_capacity(peers.size_hint().0.saturating_mul(LINE));
    for peer in peers {
        match style {
            Style::Plain => plain(&mut text, peer),
            Style::Verbose => verbose(&mut text, peer),
            Style::Numbered => numbered(&mut text, peer),
        }
    }
    text
}

/// The pools of an upstream that has pools in the place of servers: comments, for who reads lines.
pub fn pool_lines(pools: &Pools) -> String {
    let line = |pool: &Pool| {
        let (name, state) = (escaped(&pool.name), pool.standing.as_str());
        format!("# pool {name} priority={} failback={} {state}\n", pool.priority, pool.failback)
    };
    pools.list.iter().map(line).collect()
}

/// Appends words. A change is answered with thousands of lines, so that what is formatted is formatted by hand.
fn push<const N: usize>(out: &mut String, words: [&str; N]) {
    for word in words {
        out.push_str(word);
    }
}

/// Appends a number.
fn push_number(out: &mut String, mut number: u64) {
    if number < 10 {
        out.push(char::from(b'0' + number as u8));
        return;
    }
    // The largest has 20 digits.
    let mut digits = [0_u8; 20];
    let mut from = digits.len();
    for digit in digits.iter_mut().rev() {
        *digit = b'0' + (number % 10) as u8;
        number /= 10;
        from -= 1;
        if number == 0 {
            break;
        }
    }
    // Digits are UTF-8.
    out.push_str(str::from_utf8(digits.get(from..).unwrap_or_default()).unwrap_or_default());
}

/// `server S addr=A;`
fn plain(out: &mut String, peer: &Peer) {
    push(out, ["server ", &peer.server, " addr=", &peer.name]);
    end(out, peer);
}

/// `server S addr=A weight=1 max_fails=1 fail_timeout=10 max_conns=0 conns=0;`
fn verbose(out: &mut String, peer: &Peer) {
    push(out, ["server ", &peer.server, " addr=", &peer.name]);
    let params = peer.terms.params;
    for (name, value) in [
        (" weight=", params.weight),
        (" max_fails=", params.max_fails),
        (" fail_timeout=", params.fail_timeout),
        (" max_conns=", params.max_conns),
        (" conns=", peer.active),
    ] {
        out.push_str(name);
        push_number(out, value);
    }
    end(out, peer);
}

/// The words for state and list, and the end of the line.
fn end(out: &mut String, peer: &Peer) {
    match peer.terms.admin {
        Admin::Drain => out.push_str(" draining"),
        _ if is_down(peer) => out.push_str(" down"),
        _ => {}
    }
    if peer.is_backup() {
        out.push_str(" backup");
    }
    out.push_str(";\n");
}

/// `server A weight=2; # id=1`, with the parameters that are not the default.
fn numbered(out: &mut String, peer: &Peer) {
    push(out, ["server ", &peer.name]);
    for row in &PARAMS {
        let value = peer.terms.params.get(row.param);
        if value != row.default {
            push(out, [" ", row.name, "="]);
            push_number(out, value);
            out.push_str(if row.param == Param::FailTimeout { "s" } else { "" });
        }
    }
    if peer.is_backup() {
        out.push_str(" backup");
    }
    if is_down(peer) && peer.terms.admin != Admin::Drain {
        out.push_str(" down");
    }
    out.push(';');
    if let Some(id) = peer.id {
        out.push_str(" # id=");
        push_number(out, id.0);
        if peer.terms.admin == Admin::Drain {
            out.push_str(" draining");
        }
    }
    out.push('\n');
}

#[cfg(test)]
mod tests {
    use super::super::super::fake;
    use super::*;
    use crate::model::params::Params;

    /// The three lines of a peer.
    fn lines(peer: &Peer) -> [String; 3] {
        [Style::Plain, Style::Verbose, Style::Numbered].map(|style| listing([peer], style))
    }

    #[test]
    fn a_server_with_defaults() {
        let mut peer = fake::peer(3, "127.0.0.1");
        peer.name = "127.0.0.1:80".into();
        assert_eq!(
            lines(&peer),
            [
                "server 127.0.0.1 addr=127.0.0.1:80;\n",
                "server 127.0.0.1 addr=127.0.0.1:80 weight=1 max_fails=1 fail_timeout=10 max_conns=0 conns=0;\n",
                "server 127.0.0.1:80; # id=3\n",
            ]
        );
    }

    #[test]
    fn a_server_with_everything() {
        let mut peer = fake::backup(42, 0, "[::1]:81");
        peer.terms.params = Params { weight: 2, max_conns: 5, max_fails: 3, fail_timeout: 20 };
        peer.terms.admin = Admin::Down;
        peer.active = 7;
        assert_eq!(
            lines(&peer),
            [
                "server [::1]:81 addr=[::1]:81 down backup;\n",
                "server [::1]:81 addr=[::1]:81 weight=2 max_fails=3 fail_timeout=20 max_conns=5 conns=7 down backup;\n",
                "server [::1]:81 weight=2 max_conns=5 max_fails=3 fail_timeout=20s backup down; # id=42\n",
            ]
        );
    }

    #[test]
    fn a_server_that_is_drained_by_nginx_down_word() {
        let mut peer = fake::peer(1, "unix:/tmp/s");
        peer.terms.admin = Admin::Drain;
        peer.down = 1;
        assert_eq!(
            lines(&peer),
            [
                "server unix:/tmp/s addr=unix:/tmp/s draining;\n",
                "server unix:/tmp/s addr=unix:/tmp/s weight=1 max_fails=1 fail_timeout=10 max_conns=0 conns=0 draining;\n",
                "server unix:/tmp/s; # id=1 draining\n",
            ]
        );
    }

    #[test]
    fn numbers() {
        for number in [0, 9, 10, 65_535, u64::MAX] {
            let mut text = String::new();
            push_number(&mut text, number);
            assert_eq!(text, number.to_string());
        }
    }

    #[test]
    fn a_static_server_has_no_id() {
        let peer = Peer { id: None, down: 1, ..fake::peer(0, "a") };
        assert_eq!(lines(&peer)[2], "server a down;\n");
    }
}
