//! The rules: what a command does to an upstream, or why it cannot. No HTTP and no nginx.

pub mod access;
pub mod command;
pub mod error;
pub mod execute;
#[cfg(test)]
mod fake;
pub mod guard;
pub mod host;
pub mod job;
pub mod lease;
pub mod plan;
pub mod replace;
mod rules;
#[cfg(test)]
mod tests;

pub use access::{CommitError, Committed, Lookup, Part, Upstreams, Whole, named};
pub use command::{Action, Command, Selector};
pub use error::OpError;
pub use execute::{execute, execute_if};
pub use guard::Guard;
pub use plan::{Entry, Outcome, Plan, Removal};
pub use replace::{Progress, Replaced, Replacement};
