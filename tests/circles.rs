//! No two files import each other, neither directly nor over others.
//!
//! It reads the source as text: paths that begin with `crate`, `super`, `self` or a module of the same file. What
//! `pub use` hands on counts as an import of the file that it comes from, not of the file that hands it on.

#![expect(clippy::indexing_slicing, clippy::unwrap_used, reason = "a test may fail in any way")]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

/// Where no two files do.
const FOLDERS: &[&str] = &["crates/core/src", "src"];

/// A module: its path from the root of the crate.
type Module = Vec<String>;

/// The files of a crate.
struct Files {
    /// The source of each module, without comments and tests.
    sources: BTreeMap<Module, String>,
}

/// A word or a sign of the source.
type Token = String;

impl Files {
    /// All files below a folder.
    fn read(src: &Path) -> Self {
        let mut files = Self { sources: BTreeMap::new() };
        files.add(src, &mut Vec::new());
        files
    }

    /// Adds the files of a folder, which is the module `at`.
    fn add(&mut self, folder: &Path, at: &mut Module) {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            let name = path.file_stem().unwrap().to_str().unwrap().to_owned();
            if path.is_dir() {
                at.push(name);
                self.add(&path, at);
                at.pop();
            } else if path.extension().is_some_and(|end| end == "rs") && !is_test_only(&path) {
                let mut module = at.clone();
                if name != "mod" && name != "lib" {
                    module.push(name);
                }
                self.sources.insert(module, code_of(&fs::read_to_string(&path).unwrap()));
            }
        }
    }

    /// Which modules each module imports.
    fn imports(&self) -> BTreeMap<&Module, BTreeSet<&Module>> {
        let handed_on: BTreeMap<_, _> =
            self.sources.iter().map(|(module, source)| (module, self.paths(module, source, true))).collect();
        let found = self.sources.iter().map(|(module, source)| {
            let paths = self.paths(module, source, false);
            let targets = paths.iter().filter_map(|path| self.file_of(path, &handed_on, 0));
            // What the root names by `use` is another crate.
            (module, targets.filter(|target| *target != module && !target.is_empty()).collect())
        });
        found.collect()
    }

    /// The paths in a source, from the root: those of `pub use`, or all others.
    fn paths(&self, module: &Module, source: &str, of_pub_use: bool) -> Vec<Module> {
        let tokens = tokens(source);
        let mut found = Vec::new();
        let mut at = 0;
        while let Some(token) = tokens.get(at) {
            let before = |back: usize| at.checked_sub(back).and_then(|place| tokens.get(place));
            let is_start = before(1).is_none_or(|token| token != "::" && token != "mod" && token != ".");
            let is_child = || {
                let mut child = module.clone();
                child.push(token.clone());
                self.sources.contains_key(&child) && tokens.get(at + 1).is_some_and(|next| next == "::")
            };
            let is_anchor = ["crate", "super", "self"].contains(&token.as_str())
                && tokens.get(at + 1).is_some_and(|next| next == "::");
            if is_start && (is_anchor || is_child()) {
                let mut ends = Vec::new();
                let is_use = before(1).is_some_and(|token| token == "use");
                let is_pub = is_use && before(2).is_some_and(|token| token == "pub" || token == ")");
                at = tree(&tokens, at, Vec::new(), &mut ends);
                if is_pub == of_pub_use {
                    found.extend(ends.iter().map(|path| absolute(module, path)));
                }
            } else {
                at += 1;
            }
        }
        found
    }

    /// The module that a path leads to.
    fn file_of<'a>(
        &'a self,
        path: &[String],
        handed_on: &BTreeMap<&Module, Vec<Module>>,
        depth: usize,
    ) -> Option<&'a Module> {
        let len = (0..=path.len()).rev().find(|len| self.sources.contains_key(&path[..*len]))?;
        let (module, _) = self.sources.get_key_value(&path[..len])?;
        let next = path.get(len);
        let further = handed_on.get(module).into_iter().flatten();
        let further = further.filter(|target| target.last() == next && next.is_some());
        let further = further.filter(|target| target.as_slice() != path && depth < 4);
        further.filter_map(|target| self.file_of(target, handed_on, depth + 1)).next().or(Some(module))
    }

    /// The groups of modules that import each other, directly or over others: each in one line.
    fn circles(&self) -> BTreeSet<String> {
        let imports = self.imports();
        let all: BTreeMap<_, _> =
            self.sources.keys().map(|module| (module, reached(module, &imports))).collect();
        let circle_of = |module: &Module| {
            let circle = all[module].iter().filter(|other| all[**other].contains(module));
            circle.map(|module| module.join("/")).collect::<Vec<_>>().join(" ")
        };
        self.sources.keys().map(circle_of).filter(|circle| !circle.is_empty()).collect()
    }
}

/// What a module imports, directly or over others.
fn reached<'a>(start: &'a Module, imports: &BTreeMap<&Module, BTreeSet<&'a Module>>) -> BTreeSet<&'a Module> {
    let (mut seen, mut next) = (BTreeSet::new(), vec![start]);
    while let Some(module) = next.pop() {
        next.extend(imports.get(module).into_iter().flatten().filter(|found| seen.insert(**found)));
    }
    seen
}

/// The paths of a tree such as `super::{a, b::C}` that begins at a token. Returns the place behind it.
fn tree(tokens: &[Token], mut at: usize, mut path: Module, ends: &mut Vec<Module>) -> usize {
    loop {
        match tokens.get(at).map(String::as_str) {
            Some("{") => {
                at += 1;
                while tokens.get(at).is_some_and(|token| token != "}") {
                    if tokens[at] == "," {
                        at += 1;
                    } else {
                        at = tree(tokens, at, path.clone(), ends);
                    }
                }
                return at + 1;
            }
            Some(word) => path.push(word.to_owned()),
            None => return at,
        }
        at += 1;
        if tokens.get(at).is_none_or(|token| token != "::") {
            ends.push(path);
            // `as` and a name
            return if tokens.get(at).is_some_and(|token| token == "as") { at + 2 } else { at };
        }
        at += 1;
    }
}

/// A path of a module, from the root.
fn absolute(module: &Module, path: &[String]) -> Module {
    let mut base = module.clone();
    let mut rest = path;
    while let Some((first, others)) = rest.split_first() {
        match first.as_str() {
            "crate" => base.clear(),
            "super" => drop(base.pop()),
            "self" => {}
            _ => break,
        }
        rest = others;
    }
    base.extend(rest.iter().cloned());
    base
}

/// Words, `::` and single signs.
fn tokens(source: &str) -> Vec<Token> {
    let mut tokens: Vec<Token> = Vec::new();
    let mut rest = source;
    while let Some(first) = rest.chars().next() {
        let word = rest.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(rest.len());
        let len = if word > 0 {
            word
        } else if rest.starts_with("::") {
            2
        } else {
            first.len_utf8()
        };
        if !first.is_whitespace() {
            tokens.push(rest[..len].to_owned());
        }
        rest = &rest[len..];
    }
    tokens
}

/// Whether only tests compile a file.
fn is_test_only(path: &Path) -> bool {
    let name = path.file_name().unwrap().to_str().unwrap();
    name.ends_with("tests.rs") || ["fixture.rs", "fake.rs"].contains(&name)
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

/// A crate of these files.
fn files(table: &[(&str, &str)]) -> Files {
    let module = |path: &str| path.split('/').filter(|name| !name.is_empty()).map(str::to_owned).collect();
    Files { sources: table.iter().map(|(path, source)| (module(path), code_of(source))).collect() }
}

#[test]
fn no_two_files_import_each_other() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    for folder in FOLDERS {
        let files = Files::read(&root.join(folder));
        assert!(files.sources.len() > 30, "the files of {folder} were found");
        let edges: usize = files.imports().values().map(BTreeSet::len).sum();
        assert!(edges > 60, "the imports of {folder} were found: {edges}");
        let circles = files.circles();
        assert!(circles.is_empty(), "files of {folder} import each other:\n{circles:#?}");
    }
}

#[test]
fn circles_are_found() {
    let bad: [&[(&str, &str)]; 6] = [
        &[("", ""), ("a", "use crate::b::B;"), ("b", "fn f() { crate::a::f() }")],
        &[("", ""), ("r", ""), ("r/a", "use super::b::B;"), ("r/b", "use super::{c::C, a::A};"), ("r/c", "")],
        &[("", ""), ("r", "mod a;\nuse a::A;\nstruct B;"), ("r/a", "use super::B;")],
        &[("", ""), ("r", "pub use a::A;"), ("r/a", "use super::b::B;"), ("r/b", "use super::A;")],
        &[("", ""), ("r", "pub use a::A;"), ("r/a", "use crate::s::B;"), ("s", "use crate::r::A;")],
        &[("", ""), ("a", "use crate::b::B;"), ("b", "use crate::c::C;"), ("c", "use crate::a;")],
    ];
    for table in bad {
        assert!(!files(table).circles().is_empty(), "{table:?}");
    }
    let good: [&[(&str, &str)]; 4] = [
        &[("", "use a::A;"), ("a", "use crate::b::B;"), ("b", "// use crate::a::A;")],
        &[
            ("", ""),
            ("r", "mod a; mod b;\npub use a::A;\npub use b::B;"),
            ("r/a", ""),
            ("r/b", "use super::A;"),
        ],
        &[("", ""), ("a", "use crate::b::B;"), ("b", "#[cfg(test)]\nmod tests { use crate::a::A; }")],
        &[("", ""), ("a", "use crate::b::B as C;"), ("b", "fn f() { self::g() }")],
    ];
    for table in good {
        assert!(files(table).circles().is_empty(), "{table:?}");
    }
}
