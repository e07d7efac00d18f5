//! A new server: whole before anything refers to it.

use std::net::SocketAddr;
use std::ptr::NonNull;

use nginx_sys::{ngx_slab_pool_t, ngx_sockaddr_t, socklen_t};

use crate::model::address::Address;

use super::nginx_peers::RawPeer;

/// The zone of the upstream has no room for a peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Full {
    /// Bytes that were needed.
    pub needed: usize,
}

unsafe extern "C" {
    /// Size of the buffer of a name.
    fn nuc_sockaddr_strlen() -> usize;
    /// Takes the TLS session of a peer, which has none then.
    pub(super) fn nuc_take_session(peer: *mut RawPeer) -> *mut u8;
}

/// Size of the buffer of a peer's name, in bytes.
pub(super) fn name_size() -> usize {
    // SAFETY: the shim returns a constant.
    unsafe { nuc_sockaddr_strlen() }
}

/// Chunks of zeroes of these sizes, all or none. nginx is kept from logging that there are none: the caller says so.
///
/// # Safety
///
/// The pool is mapped.
pub(super) unsafe fn calloc<const N: usize>(
    pool: NonNull<ngx_slab_pool_t>,
    sizes: &[usize; N],
) -> Result<[*mut u8; N], Full> {
    let mut chunks = [std::ptr::null_mut::<u8>(); N];
    let pool = pool.as_ptr();
    // SAFETY: the pool is mapped; its mutex guards its words and its chunks.
    let logs = unsafe {
        nginx_sys::ngx_shmtx_lock(&raw mut (*pool).mutex);
        let logs = ngx_slab_pool_t::log_nomem_raw(pool);
        ngx_slab_pool_t::set_log_nomem_raw(pool, 0);
        logs
    };
    for (chunk, size) in chunks.iter_mut().zip(sizes).filter(|(_, size)| **size > 0) {
        // SAFETY: the mutex is held.
        *chunk = unsafe { nginx_sys::ngx_slab_calloc_locked(pool, *size) }.cast();
    }
    let failed = chunks.iter().zip(sizes).any(|(chunk, size)| *size > 0 && chunk.is_null());
    for chunk in chunks.iter().filter(|chunk| failed && !chunk.is_null()) {
        // SAFETY: likewise; the chunk was taken above.
        unsafe { nginx_sys::ngx_slab_free_locked(pool, chunk.cast()) };
    }
    // SAFETY: likewise.
    unsafe {
        ngx_slab_pool_t::set_log_nomem_raw(pool, logs);
        nginx_sys::ngx_shmtx_unlock(&raw mut (*pool).mutex);
    }
    if failed { Err(Full { needed: sizes.iter().sum() }) } else { Ok(chunks) }
}

/// Writes an address the way nginx's parsers do. Returns its length.
///
/// # Safety
///
/// `to` is a zeroed address, and nobody else knows it.
pub(super) unsafe fn write_address(to: *mut ngx_sockaddr_t, address: &Address) -> socklen_t {
    match address {
        Address::Ip(SocketAddr::V4(ip)) => {
            // SAFETY: see above; each form fits the union.
            unsafe {
                (*to).sockaddr_in.sin_family = libc::AF_INET as _;
                (*to).sockaddr_in.sin_port = ip.port().to_be();
                (*to).sockaddr_in.sin_addr.s_addr = u32::from_ne_bytes(ip.ip().octets());
            }
            size_of::<nginx_sys::sockaddr_in>() as socklen_t
        }
        Address::Ip(SocketAddr::V6(ip)) => {
            let to: *mut libc::sockaddr_in6 = to.cast();
            // SAFETY: likewise.
            unsafe {
                (*to).sin6_family = libc::AF_INET6 as _;
                (*to).sin6_port = ip.port().to_be();
                (*to).sin6_addr.s6_addr = ip.ip().octets();
            }
            size_of::<libc::sockaddr_in6>() as socklen_t
        }
        Address::Unix(path) => {
            let to: *mut libc::sockaddr_un = to.cast();
            // SAFETY: likewise; nobody else knows the address.
            let to = unsafe { &mut *to };
            to.sun_family = libc::AF_UNIX as _;
            for (to, from) in to.sun_path.iter_mut().zip(path.bytes()) {
                *to = from as _;
            }
            size_of::<libc::sockaddr_un>() as socklen_t
        }
    }
}
