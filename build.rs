//! Turns what `nginx-sys` reports of the nginx tree into capabilities, compiles `csrc/`, and joins the page of `dashboard/`.

#![expect(
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "a build script speaks to whoever builds by failing"
)]

#[path = "dashboard/join.rs"]
mod join;
#[path = "dashboard/sha256.rs"]
mod sha256;

use std::env;
use std::fs;
use std::path::{Path, PathBuf};

/// A capability of the nginx built against, and the first version that has it.
const CAPABILITIES: &[(&str, u64)] = &[
    // rr_peers_t.config, rr_peer_t.refs and .zombie: membership may change while requests run
    ("nginx_peer_refs", 1_027_003),
    // rr_peer_t.sid, ngx_peer_connection_t.hint
    ("nginx_peer_sid", 1_029_006),
];

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-changed=csrc");
    for name in ["DEP_NGINX_VERSION_NUMBER", "DEP_NGINX_INCLUDE", "DEP_NGINX_METADATA"] {
        println!("cargo::rerun-if-env-changed={name}");
    }

    let version: u64 = env::var("DEP_NGINX_VERSION_NUMBER")
        .ok()
        .and_then(|v| v.parse().ok())
        .expect("nginx-sys reports the version of nginx");
    for (name, since) in CAPABILITIES {
        println!("cargo::rustc-check-cfg=cfg({name})");
        if version >= *since {
            println!("cargo::rustc-cfg={name}");
        }
    }

    println!("cargo::rerun-if-env-changed=DEP_NGINX_FEATURES");
    let features = env::var("DEP_NGINX_FEATURES").expect("nginx-sys reports the features of nginx");
    assert!(
        features.split(',').any(|feature| feature == "http_upstream_zone"),
        "this nginx is configured without http_upstream_zone_module, which the module needs: upstreams are changed \
         in their zones"
    );

    let mut shim = cc::Build::new();
    shim.file("csrc/peers.c")
        .file("csrc/layout.c")
        .file("csrc/peer_parts.c")
        .file("csrc/request.c")
        .file("csrc/tls.c")
        .include("csrc");
    let include = env::var_os("DEP_NGINX_INCLUDE").expect("nginx-sys reports the include paths");
    shim.includes(env::split_paths(&include));
    // nginx-sys publishes the -D flags of nginx's makefile under this key as "cflags=-DA -DB=1"
    if let Ok(metadata) = env::var("DEP_NGINX_METADATA") {
        for flag in metadata.trim_start_matches("cflags=").split_whitespace() {
            shim.flag(flag);
        }
    }
    shim.flag("-fvisibility=hidden").warnings(true).extra_warnings(false);
    shim.compile("upstream_control_shim");

    write_page();

    if env::var_os("CARGO_FEATURE_NGINX_OBJS").is_some() {
        link_nginx_objects();
    }
}

/// Writes the page, and what browsers are told of it, as constants.
fn write_page() {
    println!("cargo::rerun-if-changed=dashboard");
    let page = join::join(Path::new("dashboard")).expect("dashboard/ holds a page");
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

/// Links nginx's own objects, archived by `tools/`, so that tests run against the real slab and round robin code.
fn link_nginx_objects() {
    println!("cargo::rerun-if-env-changed=NGX_TEST_OBJS");
    println!("cargo::rerun-if-env-changed=NGX_TEST_LIBS");
    let dir =
        PathBuf::from(env::var_os("NGX_TEST_OBJS").expect("NGX_TEST_OBJS names the folder of libngxtest.a"));
    println!("cargo::rerun-if-changed={}", dir.join("libngxtest.a").display());
    println!("cargo::rustc-link-search=native={}", dir.display());
    println!("cargo::rustc-link-arg=-Wl,--start-group");
    println!("cargo::rustc-link-arg={}", dir.join("libngxtest.a").display());
    println!("cargo::rustc-link-arg=-Wl,--end-group");
    for word in env::var("NGX_TEST_LIBS").unwrap_or_default().split_whitespace() {
        println!("cargo::rustc-link-arg={word}");
    }
}
