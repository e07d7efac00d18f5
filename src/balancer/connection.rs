//! What is known of a connection to a peer, and closing it.

use nginx_sys::{ngx_close_connection, ngx_connection_t, ngx_destroy_pool, ngx_uint_t};

unsafe extern "C" {
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
