#![forbid(unsafe_code)]
//! The rules: what a command does to an upstream, or why it cannot. No HTTP and no nginx.

pub mod access;
pub mod command;
pub mod error;
pub mod plan;

pub use access::{CommitError, Lookup, Upstreams};
pub use command::{Change, Command, Selector};
pub use error::OpError;
pub use plan::{Entry, Outcome, Plan, execute};
