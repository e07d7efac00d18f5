//! Closing a connection to a peer.

use nginx_sys::{ngx_close_connection, ngx_connection_t, ngx_destroy_pool};

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
        #[cfg(nginx_ssl)]
        if !(*connection).ssl.is_null() {
            (*(*connection).ssl).set_no_wait_shutdown(1);
            (*(*connection).ssl).set_no_send_shutdown(1);
            // It says no more than that the shutdown is done, since it is told not to wait.
            let _ = nginx_sys::ngx_ssl_shutdown(connection);
        }
        let pool = (*connection).pool;
        ngx_close_connection(connection);
        if !pool.is_null() {
            ngx_destroy_pool(pool);
        }
    }
}
