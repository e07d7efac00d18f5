//! A new server: whole before anything refers to it.

use std::net::SocketAddr;
use std::ptr::NonNull;

use nginx_sys::{ngx_http_upstream_rr_peer_t, ngx_slab_pool_t, ngx_sockaddr_t, socklen_t};

use crate::model::address::Address;
use crate::model::server::Server;

use super::apply::Abilities;
use super::backend::Backend;
use super::peers::Zone;
use super::{Current, Prepared, PreparedList};

/// The zone of the upstream has no room for a peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Full {
    /// Bytes that were needed.
    pub needed: usize,
}

impl Zone {
    /// Makes a server ready to be linked.
    ///
    /// # Errors
    ///
    /// The zone is full; nothing of it stays taken.
    pub fn prepare(&self, new: &Server, abilities: Abilities) -> Result<Prepared, Full> {
        Current::prepare(self, new, abilities)
    }

    /// Makes a list of backups, unless there is one.
    ///
    /// # Errors
    ///
    /// The zone is full.
    pub fn prepare_backups(&self) -> Result<Option<PreparedList>, Full> {
        Current::prepare_backups(self)
    }
}

unsafe extern "C" {
    /// Size of the buffer of a name.
    fn nuc_sockaddr_strlen() -> usize;
    /// Takes the TLS session of a peer, which has none then.
    pub(super) fn nuc_take_session(peer: *mut ngx_http_upstream_rr_peer_t) -> *mut u8;
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
    unsafe {
        nginx_sys::ngx_shmtx_lock(&raw mut (*pool).mutex);
        let logs = ngx_slab_pool_t::log_nomem_raw(pool);
        ngx_slab_pool_t::set_log_nomem_raw(pool, 0);
        for (chunk, size) in chunks.iter_mut().zip(sizes) {
            if *size > 0 {
                *chunk = nginx_sys::ngx_slab_calloc_locked(pool, *size).cast();
            }
        }
        let failed = chunks.iter().zip(sizes).any(|(chunk, size)| *size > 0 && chunk.is_null());
        if failed {
            for chunk in chunks.iter().filter(|chunk| !chunk.is_null()) {
                nginx_sys::ngx_slab_free_locked(pool, chunk.cast());
            }
        }
        ngx_slab_pool_t::set_log_nomem_raw(pool, logs);
        nginx_sys::ngx_shmtx_unlock(&raw mut (*pool).mutex);
        if failed { Err(Full { needed: sizes.iter().sum() }) } else { Ok(chunks) }
    }
}

/// Writes an address the way nginx's parsers do. Returns its length.
///
/// # Safety
///
/// `to` is a zeroed address.
pub(super) unsafe fn write_address(to: *mut ngx_sockaddr_t, address: &Address) -> socklen_t {
    // SAFETY: see above; each form fits the union.
    unsafe {
        match address {
            Address::Ip(SocketAddr::V4(ip)) => {
                (*to).sockaddr_in.sin_family = libc::AF_INET as _;
                (*to).sockaddr_in.sin_port = ip.port().to_be();
                (*to).sockaddr_in.sin_addr.s_addr = u32::from_ne_bytes(ip.ip().octets());
                size_of::<nginx_sys::sockaddr_in>() as socklen_t
            }
            Address::Ip(SocketAddr::V6(ip)) => {
                let address: *mut libc::sockaddr_in6 = to.cast();
                (*address).sin6_family = libc::AF_INET6 as _;
                (*address).sin6_port = ip.port().to_be();
                (*address).sin6_addr.s6_addr = ip.ip().octets();
                size_of::<libc::sockaddr_in6>() as socklen_t
            }
            Address::Unix(path) => {
                let address: *mut libc::sockaddr_un = to.cast();
                (*address).sun_family = libc::AF_UNIX as _;
                for (to, from) in (*address).sun_path.iter_mut().zip(path.bytes()) {
                    *to = from as _;
                }
                size_of::<libc::sockaddr_un>() as socklen_t
            }
        }
    }
}
