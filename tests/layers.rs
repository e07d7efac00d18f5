//! Holds the table of docs/architecture.md: which room may know which. That the core knows nothing of nginx, and has no
//! unsafe code, is held by the compiler; here it is the order of its rooms.
//!
//! It reads the source as text. What it cannot see, such as a path made by a macro, is left to reviewers.

#![expect(clippy::unwrap_used, reason = "a test may fail in any way")]

use std::fs;
use std::path::{Path, PathBuf};

/// A room: the rooms that it may import, and the crates besides the standard library.
struct Room {
    /// Its folder in `crates/core/src` or `src`.
    name: &'static str,
    /// Rooms.
    rooms: &'static [&'static str],
    /// Crates.
    crates: &'static [&'static str],
}

/// The table: first the rooms of the core, then those of the shell.
const ROOMS: &[Room] = &[
    Room { name: "model", rooms: &[], crates: &["serde"] },
    Room { name: "http", rooms: &[], crates: &[] },
    Room { name: "ops", rooms: &["model"], crates: &[] },
    Room { name: "forms", rooms: &["ops", "http", "model"], crates: &["serde", "serde_json"] },
    Room { name: "nginx", rooms: &["http", "model"], crates: &["ngx", "nginx_sys", "libc"] },
    Room { name: "store", rooms: &["nginx", "ops", "model"], crates: &["nginx_sys"] },
    Room { name: "zone", rooms: &["nginx", "model"], crates: &["nginx_sys", "libc"] },
    Room { name: "live", rooms: &["ops", "store", "zone", "nginx", "model"], crates: &[] },
    Room {
        name: "balancer",
        rooms: &["live", "zone", "store", "ops", "nginx", "model"],
        crates: &["ngx", "nginx_sys", "libc"],
    },
    Room { name: "handlers", rooms: &["forms", "ops", "http", "nginx", "model"], crates: &[] },
    Room { name: "jobs", rooms: &["ops", "nginx", "model"], crates: &[] },
    Room {
        name: "directives",
        rooms: &["nginx", "model", "ops", "forms", "handlers"],
        crates: &["nginx_sys"],
    },
];

/// Modules of the nginx room that handlers and jobs may use.
const EDGE: &[&str] = &["http", "caller", "log", "memory", "process", "time", "timer"];

/// Crates that some room may use.
const CRATES: &[&str] = &["ngx", "nginx_sys", "libc", "serde", "serde_json"];

/// Rooms whose safe functions may take pointers: they are made of unsafe code, and keep pointers in types of their own.
const POINTERS: &[&str] = &["nginx", "store", "zone", "balancer"];

/// Where functions of C are exported, which take what their callers give.
const FOREIGN: &str = "handlers/lua";

/// Words that only one room may write, and the room.
const PRIVATE_WORDS: &[(&str, &str)] = &[
    ("ngx_http_upstream_rr_", "zone"),
    ("cfg(nginx_peer_", "zone"),
    // Bits of a request are where bindgen does not see them; csrc/request.c reads them.
    ("header_only()", "csrc"),
    ("header_sent()", "csrc"),
];

/// What only http's upstreams have begins with this. Another kind of peers can stand beside them as long as only these
/// rooms and files say it.
const HTTP_WORD: &str = "ngx_http_";

/// The rooms and files that may.
const HTTP: &[&str] = &["nginx", "balancer", "handlers", "directives", "zone/nginx_peers.rs"];

/// A place that breaks the table, in words.
type Violation = String;

/// What breaks the table in one file of a room. `path` is relative to `src`.
fn violations(path: &Path, source: &str) -> Vec<Violation> {
    let name = path.iter().next().unwrap().to_str().unwrap();
    let name = name.strip_suffix(".rs").unwrap_or(name);
    let Some(room) = ROOMS.iter().find(|room| room.name == name) else {
        return vec![format!("{}: a room that the table does not have", path.display())];
    };
    let code = code_of(source);
    let mut found = Vec::new();
    let mut add = |what: String| found.push(format!("{}: {what}", path.display()));

    for (word, rest) in paths(&code, "crate") {
        if word == "{" {
            add("imports by `crate::{..}`, which this test cannot read".into());
        } else if word != room.name && !room.rooms.contains(&word) {
            add(format!("may not import `{word}`"));
        } else if word == "nginx" && ["handlers", "jobs"].contains(&room.name) {
            let module = rest.strip_prefix("::").and_then(first_word).unwrap_or("");
            if !EDGE.contains(&module) {
                add(format!("may not import `nginx::{module}`"));
            }
        }
    }
    for name in CRATES.iter().filter(|name| !room.crates.contains(name)) {
        if paths(&code, name).next().is_some() {
            add(format!("may not use the crate `{name}`"));
        }
    }
    let levels = path.iter().count() - usize::from(path.ends_with("mod.rs"));
    if code.contains(&"super::".repeat(levels)) {
        add("leaves its room by `super`".into());
    }
    for (word, owner) in PRIVATE_WORDS.iter().filter(|(_, owner)| *owner != room.name) {
        if code.contains(word) {
            add(format!("`{word}..` is a word of `{owner}`"));
        }
    }
    if !POINTERS.contains(&room.name) && !path.starts_with(FOREIGN) {
        for function in safe_with_pointers(&code) {
            add(format!("the safe function `{function}` takes a pointer"));
        }
    }
    if !HTTP.iter().any(|place| path.starts_with(place)) && code.contains(HTTP_WORD) {
        add(format!("may not write `{HTTP_WORD}..`"));
    }
    found
}

/// The safe functions that take a raw pointer or a `NonNull`: nobody says then that it may be followed.
fn safe_with_pointers(code: &str) -> Vec<&str> {
    let functions = code.match_indices("fn ").filter_map(|(at, word)| {
        let line = code[..at].rsplit('\n').next().unwrap_or("");
        let rest = &code[at + word.len()..];
        let is_safe =
            !line.split_whitespace().any(|word| word == "unsafe") && !line.ends_with(char::is_alphanumeric);
        let signature = rest.split(['{', ';']).next().unwrap_or("");
        let taken = signature.rsplit_once(") ->").map_or(signature, |(taken, _)| taken);
        let takes_pointer = ["NonNull<", "*mut ", "*const "].iter().any(|word| taken.contains(word));
        (is_safe && takes_pointer).then(|| first_word(rest)).flatten()
    });
    functions.collect()
}

/// Each path that begins with the crate `name`: its second word, and what follows that.
fn paths<'a>(code: &'a str, name: &'a str) -> impl Iterator<Item = (&'a str, &'a str)> {
    code.match_indices(name).filter_map(move |(at, _)| {
        let before = code[..at].chars().next_back();
        if before.is_some_and(|c| c.is_alphanumeric() || c == '_' || c == ':') && !code[..at].ends_with(" ::")
        {
            return None;
        }
        let rest = code[at + name.len()..].strip_prefix("::")?;
        let word = if rest.starts_with('{') { "{" } else { first_word(rest)? };
        Some((word, &rest[word.len()..]))
    })
}

/// The identifier at the start of a text.
fn first_word(text: &str) -> Option<&str> {
    let end = text.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(text.len());
    (end > 0).then(|| &text[..end])
}

/// Whether a line is an attribute of what only tests compile.
fn is_for_tests(line: &str) -> bool {
    line.starts_with("#[cfg(test)]") || line.starts_with("#[cfg(all(test,")
}

/// The source without comments, and without the tests at its end, which may reach for anything.
fn code_of(source: &str) -> String {
    let is_of_tests =
        |(at, _): &(usize, &str)| source[..*at].trim_end().lines().next_back().is_some_and(is_for_tests);
    let end = source.match_indices("\nmod tests {").find(is_of_tests).map_or(source.len(), |(at, _)| at);
    let source = &source[..end];
    source.lines().map(|line| line.split("//").next().unwrap_or("")).collect::<Vec<_>>().join("\n")
}

/// All Rust files below a folder, but those that only tests compile.
fn files(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_str().unwrap();
        let test_only = ["tests.rs", "fixture.rs", "fake.rs"].iter().any(|end| name.ends_with(end));
        if path.is_dir() {
            files(&path, found);
        } else if path.extension().is_some_and(|end| end == "rs") && !test_only {
            found.push(path);
        }
    }
}

#[test]
fn every_room_keeps_to_the_table() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut found = Vec::new();
    for (folder, at_least) in [("src", 30), ("crates/core/src", 20)] {
        let src = root.join(folder);
        let mut all = Vec::new();
        files(&src, &mut all);
        assert!(all.len() > at_least, "the rooms of {folder} were found: {}", all.len());
        let root = src.join("lib.rs");
        let code = code_of(&fs::read_to_string(&root).unwrap());
        found.extend(safe_with_pointers(&code).iter().map(|name| format!("{folder}/lib.rs: `{name}`")));
        let rooms = all.iter().filter(|path| **path != root);
        found.extend(rooms.flat_map(|path| {
            violations(path.strip_prefix(&src).unwrap(), &fs::read_to_string(path).unwrap())
        }));
    }
    assert!(found.is_empty(), "\n{}", found.join("\n"));
}

#[test]
fn the_table_is_that_of_the_document() {
    let document = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/architecture.md");
    let document = fs::read_to_string(document).unwrap();
    for room in ROOMS {
        let row = document
            .lines()
            .find(|line| line.starts_with(&format!("| `{}` |", room.name)))
            .unwrap_or_else(|| panic!("no row for `{}`", room.name));
        // What stands in brackets are words about a room.
        let row = row.split('(').map(|part| part.split_once(')').map_or(part, |(_, rest)| rest));
        let row = row.collect::<String>().replace(" ,", ",");
        let cells: Vec<_> = row.split('|').map(str::trim).collect();
        let wanted =
            |words: &[&str]| words.iter().map(|word| format!("`{word}`")).collect::<Vec<_>>().join(", ");
        assert_eq!(cells[2], wanted(room.rooms), "rooms of `{}`", room.name);
        assert_eq!(cells[3], wanted(room.crates), "crates of `{}`", room.name);
    }
}

#[test]
fn the_check_sees_what_it_must() {
    let bad = [
        ("ops/plan.rs", "use crate::store::Store;", "may not import `store`"),
        ("ops/plan.rs", "fn f() { crate::nginx::log::Log::x() }", "may not import `nginx`"),
        ("ops/plan.rs", "use nginx_sys::ngx_log_t;", "may not use the crate `nginx_sys`"),
        ("ops/plan.rs", "use ::libc::c_int;", "may not use the crate `libc`"),
        ("ops/plan.rs", "use super::super::zone::Zone;", "leaves its room"),
        ("ops/plan.rs", "use crate::{model, zone};", "cannot read"),
        ("ops/mod.rs", "use super::zone::Zone;", "leaves its room"),
        ("handlers/status/mod.rs", "use crate::live::Live;", "may not import `live`"),
        ("handlers/status/mod.rs", "use super::super::live::Live;", "leaves its room"),
        ("handlers/mod.rs", "use crate::nginx::shm::add;", "may not import `nginx::shm`"),
        ("balancer/hook.rs", "let p: ngx_http_upstream_rr_peer_t;", "is a word of `zone`"),
        ("live/mod.rs", "#[cfg(nginx_peer_refs)]", "is a word of `zone`"),
        ("zone/peers.rs", "let p: ngx_http_upstream_rr_peer_t;", "may not write `ngx_http_..`"),
        ("store/index.rs", "let p: *mut ngx_http_request_t;", "may not write `ngx_http_..`"),
        ("attic/mod.rs", "", "does not have"),
        ("live/mod.rs", "    pub fn f(at: NonNull<Server>) -> bool {", "safe function `f` takes a pointer"),
        ("live/mod.rs", "fn g<T>(\n    &self,\n    r: *mut T,\n) {}", "safe function `g` takes a pointer"),
        ("handlers/edge.rs", "fn h(r: *const u8, f: impl Fn(u8) -> u8) -> u8;", "takes a pointer"),
    ];
    for (path, source, wanted) in bad {
        let found = violations(Path::new(path), source);
        assert!(found.iter().any(|found| found.contains(wanted)), "{path}: {source}: {found:?}");
    }
    let good = [
        ("ops/plan.rs", "use crate::model::id::ServerId;\nuse super::error::OpError; // crate::store"),
        ("handlers/status/json.rs", "use super::super::peer::Peer;\nuse crate::nginx::log::Log;"),
        ("zone/peers.rs", "fn f(peer: NonNull<u8>) {}"),
        ("live/mod.rs", "pub unsafe fn f(at: NonNull<u8>) {}\nfn g(&self) -> NonNull<u8> {}"),
        ("live/mod.rs", "type F = unsafe extern \"C\" fn(*mut u8);\nunsafe extern \"C\" fn f(r: *mut u8) {}"),
        ("handlers/lua/mod.rs", "pub extern \"C\" fn f(text: *const u8) {}"),
        ("zone/nginx_peers.rs", "use nginx_sys::ngx_http_upstream_rr_peer_t;"),
    ];
    for (path, source) in good {
        assert_eq!(violations(Path::new(path), source), Vec::<Violation>::new());
    }
}
