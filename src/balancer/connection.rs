//! What is known of a connection to a peer, and closing it.

use nginx_sys::{
    ngx_close_connection, ngx_connection_t, ngx_destroy_pool, ngx_event_save_peer_session_pt,
    ngx_event_set_peer_session_pt, ngx_peer_connection_t, ngx_uint_t,
};

/// The functions by which a balancer keeps TLS sessions; `nuc_sessions_t` of csrc/shim.h.
#[repr(C)]
#[derive(Clone, Copy)]
pub(super) struct Sessions {
    /// Offers one.
    pub set: ngx_event_set_peer_session_pt,
    /// Keeps one.
    pub save: ngx_event_save_peer_session_pt,
}

unsafe extern "C" {
    /// The functions that are there.
    fn nuc_sessions(pc: *const ngx_peer_connection_t) -> Sessions;
    /// Puts others there.
    fn nuc_set_sessions(pc: *mut ngx_peer_connection_t, sessions: Sessions);
    /// Whether TLS has begun.
    fn nuc_has_tls(c: *const ngx_connection_t) -> ngx_uint_t;
    /// Ends TLS on a connection that is about to be closed.
    fn nuc_end_tls(c: *mut ngx_connection_t);
}

/// Whether TLS has begun on a connection.
///
/// # Safety
///
/// The connection is null or one of this worker's.
pub(super) unsafe fn has_tls(connection: *const ngx_connection_t) -> bool {
    // SAFETY: see above; the shim reads one pointer.
    !connection.is_null() && unsafe { nuc_has_tls(connection) } != 0
}

impl Sessions {
    /// Those of a request's connection.
    pub fn of(pc: &ngx_peer_connection_t) -> Self {
        // SAFETY: the shim reads two words of the structure.
        unsafe { nuc_sessions(pc) }
    }

    /// Puts these into a request's connection.
    pub fn put_into(self, pc: &mut ngx_peer_connection_t) {
        // SAFETY: the shim writes the same two words.
        unsafe { nuc_set_sessions(pc, self) };
    }
}

/// Closes a connection that keepalive has given away.
///
/// # Safety
///
/// Nothing else refers to the connection.
pub(super) unsafe fn close(connection: *mut ngx_connection_t) {
    // SAFETY: see above; this is what nginx does with a connection to a peer that it is done with.
    unsafe {
        if connection.is_null() {
            return;
        }
        nuc_end_tls(connection);
        let pool = (*connection).pool;
        ngx_close_connection(connection);
        if !pool.is_null() {
            ngx_destroy_pool(pool);
        }
    }
}
