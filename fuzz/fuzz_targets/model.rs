//! The files of the module that are fuzzed. They are included by path, because nothing can link against the module's
//! crate: it is a cdylib.

#![allow(dead_code, reason = "each target uses a part of these files")]

#[path = "../../src/model/address.rs"]
pub mod address;
#[path = "../../src/model/id.rs"]
pub mod id;
#[path = "../../src/model/list/mod.rs"]
pub mod list;
#[path = "../../src/model/params.rs"]
pub mod params;
#[path = "../../src/model/query.rs"]
pub mod query;
#[path = "../../src/model/state.rs"]
pub mod state;
#[path = "../../src/model/time.rs"]
pub mod time;

/// Panics unless a message can be shown anywhere: one line without control characters, of bounded length.
pub fn check_message(error: &dyn std::error::Error) {
    let message = error.to_string();
    assert!(!message.is_empty());
    assert!(!message.chars().any(char::is_control));
    assert!(message.chars().count() < 200);
}
