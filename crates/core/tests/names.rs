//! No two types of this crate have the same name.

#![expect(clippy::unwrap_used, reason = "a test may fail in any way")]

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

/// Names that two types have all the same: both are the usual term, and they never meet.
const TWICE: [(&str, &str); 1] = [("Method", "of HTTP, and for balancing")];

/// The name that a line declares, if it declares a type or a trait.
fn declared(line: &str) -> Option<&str> {
    let mut words =
        line.split(|sign: char| !sign.is_alphanumeric() && sign != '_').filter(|it| !it.is_empty());
    words
        .find(|word| !matches!(*word, "pub" | "crate" | "super"))
        .filter(|word| matches!(*word, "struct" | "enum" | "trait" | "type"))?;
    words.next()
}

/// Notes the files that declare each name, below a folder.
fn read(folder: &Path, names: &mut BTreeMap<String, Vec<PathBuf>>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            read(&path, names);
            continue;
        }
        // Tests are for themselves, and so is what they have instead of nginx.
        if path.file_stem().is_some_and(|name| name == "fake" || name.to_string_lossy().ends_with("tests")) {
            continue;
        }
        let source = fs::read_to_string(&path).unwrap();
        let code = source.split("#[cfg(test)]\nmod tests {").next().unwrap();
        // Types of a trait's implementation are indented.
        for name in code.lines().filter(|line| !line.starts_with(' ')).filter_map(declared) {
            names.entry(name.to_owned()).or_default().push(path.clone());
        }
    }
}

#[test]
fn each_type_has_a_name_of_its_own() {
    let mut names = BTreeMap::new();
    read(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src"), &mut names);
    assert!(names.len() > 100, "{names:?}");
    names.retain(|name, files| files.len() > 1 && TWICE.iter().all(|(known, _)| known != name));
    assert!(names.is_empty(), "{names:#?}");
}

#[test]
fn the_check_sees_declarations() {
    let table = [
        ("pub struct Terms {", Some("Terms")),
        ("pub(super) enum Stage<'a> {", Some("Stage")),
        ("type Field = (u8, u8);", Some("Field")),
        ("pub trait Lookup {", Some("Lookup")),
        ("impl Terms {", None),
        ("/// A struct Of words.", None),
        ("fn type_of() {}", None),
        ("", None),
    ];
    for (line, name) in table {
        assert_eq!(declared(line), name, "{line}");
    }
}
