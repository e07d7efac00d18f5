//! Joins the page of `dashboard/`.

#![expect(
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "a build script speaks to whoever builds by failing"
)]

#[path = "../../dashboard/join.rs"]
mod join;
#[path = "../../dashboard/sha256.rs"]
mod sha256;

use std::env;
use std::fs;
use std::path::{Path, PathBuf};

/// Writes the page, and what browsers are told of it, as constants.
fn main() {
    const DASHBOARD: &str = "../../dashboard";
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-changed={DASHBOARD}");
    let page = join::join(Path::new(DASHBOARD)).expect("dashboard/ holds a page");
    let constant =
        |name: &str, what: &str, text: &str| format!("/// {what}\npub const {name}: &str = {text:?};\n");
    let constants = [
        constant("HEAD", "The page up to the URI of the control location.", &page.head),
        constant("TAIL", "The page from there on.", &page.tail),
        constant("POLICY", "Its `Content-Security-Policy`.", &page.policy),
    ];
    let out = PathBuf::from(env::var_os("OUT_DIR").expect("cargo says where to write"));
    fs::write(out.join("dashboard.rs"), constants.concat()).expect("cargo's folder can be written");
}
