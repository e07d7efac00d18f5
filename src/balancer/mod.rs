//! What rides on a proxied request: which balancer an upstream has, a hook around it, another try when the lists of peers
//! changed under a request, and an upstream of pools in the place of a balancer.

mod composed;
mod connection;
mod cookies;
mod hook;
mod identify;
mod idle;
mod inner;
mod install;
mod look;
mod pools;
mod request;
mod retry;
mod ride;
mod seat;
mod variable;

pub use composed::Composed;
pub use hook::Hook;
pub use identify::Balancers;
pub use look::Look;
pub use seat::Seat;
pub use variable::add_variables;

use std::panic::{AssertUnwindSafe, catch_unwind};

/// Runs what nginx called; a panic ends here, with `failed`. It is not logged where it happened but by Rust's own hook,
/// on the worker's standard error, which nginx keeps open.
fn guarded<T>(failed: T, work: impl FnOnce() -> T) -> T {
    catch_unwind(AssertUnwindSafe(work)).unwrap_or(failed)
}
