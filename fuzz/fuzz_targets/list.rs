//! Lists of servers: what is taken means the same when it is written again, and what is refused has a safe message.

#![cfg_attr(feature = "libfuzzer", no_main)]

use std::fmt::Write;

use nginx_upstream_control_fuzz::fuzz_target;
use upstream_control_core::model::list::List;
use upstream_control_core::model::list::text::TextReader;
use upstream_control_core::model::params::PARAMS;
use upstream_control_core::model::state::Admin;

/// Everything that a text says; none if it is refused.
fn read(text: &[u8]) -> Option<Vec<List>> {
    let mut reader = TextReader::new(text.to_vec());
    for _ in 0..=text.len() + 1 {
        match reader.step() {
            Ok(true) => {}
            Ok(false) => return Some(reader.into_lists()),
            Err(error) => {
                let message = error.to_string();
                assert!(message.starts_with("line ") && message.chars().count() < 400);
                assert!(!message.chars().any(char::is_control));
                return None;
            }
        }
    }
    panic!("it does not end")
}

/// A word in quotes.
fn quote(text: &str) -> String {
    format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\""))
}

/// The lists in nginx's words.
fn write(lists: &[List]) -> String {
    let mut text = String::new();
    for list in lists {
        if let Some(name) = &list.upstream {
            let _ = write!(text, "upstream {} {{ ", quote(name));
        }
        for server in list.servers.iter().map(|listed| &listed.server) {
            let _ = write!(text, "server {}", quote(&server.text));
            for row in &PARAMS {
                let _ = write!(text, " {}={}", row.name, server.terms.params.get(row.param));
            }
            if server.group.is_backup() {
                text.push_str(" backup");
            }
            text.push_str(match server.terms.admin {
                Admin::Up => ";",
                Admin::Down => " down;",
                Admin::Drain => " drain;",
            });
        }
        if list.upstream.is_some() {
            text.push_str(" }");
        }
    }
    text
}

fuzz_target!(|text: &[u8]| {
    let Some(lists) = read(text) else { return };
    let again = read(write(&lists).as_bytes()).expect("what was read can be written");
    assert_eq!(lists.len(), again.len());
    for (list, again) in lists.iter().zip(&again) {
        assert_eq!((&list.upstream, list.servers.len()), (&again.upstream, again.servers.len()));
        for (server, again) in list.servers.iter().zip(&again.servers) {
            assert_eq!(server.server, again.server);
        }
    }
});
