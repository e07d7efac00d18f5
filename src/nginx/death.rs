//! Moments at which a worker dies, in the module that `t/hazard_deaths.t` runs with; in any other they pass by.

/// A moment, by name.
#[cfg(not(feature = "test-deaths"))]
#[inline(always)]
pub fn may_come(_moment: &str) {}

/// A moment, by name. The process ends by SIGKILL if the file that the environment names has that name in it; the file
/// goes first, so that the next process lives on.
///
/// Under locks this does what is forbidden there, in a process that waits for its end.
#[cfg(feature = "test-deaths")]
pub fn may_come(moment: &str) {
    let Some(file) = std::env::var_os("UPSTREAM_CONTROL_DEATH") else { return };
    if std::fs::read(&file).is_ok_and(|name| name == moment.as_bytes()) && std::fs::remove_file(&file).is_ok()
    {
        // SAFETY: a signal to this very process; nothing of it is used afterwards.
        unsafe { libc::raise(libc::SIGKILL) };
    }
}
