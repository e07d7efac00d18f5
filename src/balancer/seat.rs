//! Where hooks are found.

use std::rc::Rc;

use super::composed::Composed;
use super::hook::Hook;

/// Where an upstream's hook is found: the first words of this module's settings of the upstream.
#[repr(C)]
#[derive(Default)]
pub struct Seat {
    /// The hook of one that has servers; none in an upstream without one, and in server blocks.
    pub(super) hook: Option<Rc<Hook>>,
    /// The hook of an upstream that has pools in the place of servers.
    pub(super) composed: Option<Rc<Composed>>,
}
