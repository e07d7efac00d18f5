//! Moments at which a worker dies or stops, in the module that `t/hazard_deaths.t` runs with; in any other they pass by.

/// A moment, by name.
#[cfg(not(feature = "test-deaths"))]
#[inline(always)]
pub fn may_come(_moment: &str) {}

/// A moment, by name. If the file that the environment names has that name in it, the process ends by SIGKILL; if it has
/// the name after `stop `, the process is stopped by SIGSTOP, and goes on when somebody lets it. The file goes first, so
/// that the next process lives on.
///
/// Under locks this does what is forbidden there, in a process that waits for its end.
#[cfg(feature = "test-deaths")]
pub fn may_come(moment: &str) {
    let Some(file) = std::env::var_os("UPSTREAM_CONTROL_DEATH") else { return };
    let Ok(asked) = std::fs::read_to_string(&file) else { return };
    let (signal, name) = match asked.strip_prefix("stop ") {
        Some(name) => (libc::SIGSTOP, name),
        None => (libc::SIGKILL, asked.as_str()),
    };
    if name == moment && std::fs::remove_file(&file).is_ok() {
        // SAFETY: a signal to this very process; after the one that ends it nothing of it is used.
        unsafe { libc::raise(signal) };
    }
}
