//! The lines in which servers are listed as text.

use std::fmt::{self, Write};

use crate::model::params::{PARAMS, Param};
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

/// The lines of some peers.
pub fn listing<'a>(peers: impl IntoIterator<Item = &'a Peer>, style: Style) -> String {
    peers.into_iter().fold(String::new(), |mut text, peer| {
        // Writing to a String cannot fail.
        let _ = match style {
            Style::Plain => plain(&mut text, peer),
            Style::Verbose => verbose(&mut text, peer),
            Style::Numbered => numbered(&mut text, peer),
        };
        text
    })
}

/// `server S addr=A;`
fn plain(out: &mut String, peer: &Peer) -> fmt::Result {
    write!(out, "server {} addr={}", peer.server, peer.name)?;
    end(out, peer)
}

/// `server S addr=A weight=1 max_fails=1 fail_timeout=10 max_conns=0 conns=0;`
fn verbose(out: &mut String, peer: &Peer) -> fmt::Result {
    let params = peer.params;
    write!(
        out,
        "server {} addr={} weight={} max_fails={} fail_timeout={} max_conns={} conns={}",
        peer.server,
        peer.name,
        params.weight,
        params.max_fails,
        params.fail_timeout,
        params.max_conns,
        peer.active
    )?;
    end(out, peer)
}

/// The words for state and list, and the end of the line.
fn end(out: &mut String, peer: &Peer) -> fmt::Result {
    match peer.admin {
        Admin::Drain => out.write_str(" draining")?,
        _ if is_down(peer) => out.write_str(" down")?,
        _ => {}
    }
    if peer.is_backup() {
        out.write_str(" backup")?;
    }
    out.write_str(";\n")
}

/// `server A weight=2; # id=1`, with the parameters that are not the default.
fn numbered(out: &mut String, peer: &Peer) -> fmt::Result {
    write!(out, "server {}", peer.name)?;
    for row in &PARAMS {
        let value = peer.params.get(row.param);
        if value != row.default {
            let unit = if row.param == Param::FailTimeout { "s" } else { "" };
            write!(out, " {}={value}{unit}", row.name)?;
        }
    }
    if peer.is_backup() {
        out.write_str(" backup")?;
    }
    if is_down(peer) && peer.admin != Admin::Drain {
        out.write_str(" down")?;
    }
    out.write_str(";")?;
    if let Some(id) = peer.id {
        write!(out, " # id={id}")?;
        if peer.admin == Admin::Drain {
            out.write_str(" draining")?;
        }
    }
    out.write_str("\n")
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
        peer.name = "127.0.0.1:80".to_owned();
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
        peer.params = Params { weight: 2, max_conns: 5, max_fails: 3, fail_timeout: 20 };
        peer.admin = Admin::Down;
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
        peer.admin = Admin::Drain;
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
    fn a_static_server_has_no_id() {
        let peer = Peer { id: None, down: 1, ..fake::peer(0, "a") };
        assert_eq!(lines(&peer)[2], "server a down;\n");
    }
}
