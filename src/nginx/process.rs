//! What kind of process this is.

use nginx_sys::{
    NGX_PROCESS_WORKER, ngx_cycle_t, ngx_exiting, ngx_inherited, ngx_pid, ngx_process, ngx_uint_t,
};

/// Whether this is a worker: neither the master, nor a helper such as the cache manager, nor nginx without a master, where
/// the zones of a configuration end before its timers would.
pub fn is_worker() -> bool {
    // SAFETY: nginx sets the word before it calls any hook of a process.
    unsafe { (&raw const ngx_process).read() == NGX_PROCESS_WORKER as ngx_uint_t }
}

/// Whether this worker takes no new requests and ends with its last one.
pub fn is_exiting() -> bool {
    // SAFETY: a word that signal handlers of this thread write.
    unsafe { (&raw const ngx_exiting).read_volatile() != 0 }
}

/// Whether this configuration is the first of an nginx that another nginx started, for a binary upgrade: both serve until
/// one of them is told to end.
///
/// # Safety
///
/// Called in `init_module`, with the configuration that begins.
pub unsafe fn is_second_instance(cycle: *const ngx_cycle_t) -> bool {
    // SAFETY: nginx sets the word when it takes over the sockets, before it reads a configuration. It gives the first one
    // a predecessor without settings.
    unsafe {
        let inherited = (&raw const ngx_inherited).read() != 0;
        inherited && (*cycle).old_cycle.as_ref().is_some_and(|old| old.conf_ctx.is_null())
    }
}

/// The id of this process.
pub fn pid() -> u32 {
    // SAFETY: nginx sets the word when a process starts.
    unsafe { (&raw const ngx_pid).read() }.unsigned_abs()
}

/// Whether a process is there. One that is there but of another user counts, too.
pub fn is_alive(pid: u32) -> bool {
    let Ok(pid) = libc::pid_t::try_from(pid) else { return false };
    // SAFETY: signal 0 is sent to nobody; the call only looks.
    unsafe { libc::kill(pid, 0) == 0 || *libc::__errno_location() != libc::ESRCH }
}
