//! What the handlers find in the configuration of the http block.

use std::cell::Cell;
use std::rc::Rc;

use crate::ops::Upstreams;

/// What the handlers need of the http block. The module's main configuration must begin with it, and be `repr(C)`:
/// handlers cast the pointer to that configuration to a pointer to this.
#[repr(C)]
#[derive(Default)]
pub struct Context {
    /// The upstreams; none if the module has no shared memory.
    pub upstreams: Option<Rc<dyn Upstreams>>,
    /// Whether the configuration was started, so that its zones are there. Requests come later than that in any case,
    /// scripts do not.
    pub is_started: Cell<bool>,
}
