//! Work of a worker that goes on for as long as the process.

use super::event::Event;

pub use super::event::Again;

/// Calls `work` after so many milliseconds, and then as it says. It does not keep a worker that is to end.
pub fn start<F: FnMut() -> Again + 'static>(after: u64, work: F) {
    let event = Event::new(work);
    event.set_timer(after);
    // It goes on until the process ends.
    std::mem::forget(event);
}
