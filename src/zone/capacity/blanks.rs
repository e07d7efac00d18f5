//! Blank slots: peers without a server, made while the configuration is read, so that nginx copies them into the zone.

use std::ptr::NonNull;

use nginx_sys::{
    ngx_conf_t, ngx_http_upstream_rr_peer_t, ngx_http_upstream_rr_peers_t, ngx_http_upstream_srv_conf_t,
    ngx_pcalloc, ngx_pool_t, ngx_sockaddr_t, sockaddr_in,
};

use crate::zone::peers::Peers;

use super::room::TEXT_SIZE;

/// What all blanks of an upstream point to until nginx copies it for each: an address and a text of zeroes.
#[derive(Clone, Copy)]
struct Blank {
    /// 0.0.0.0:0, and zeroes for any longer address.
    address: NonNull<ngx_sockaddr_t>,
    /// [`TEXT_SIZE`] zeroes.
    text: NonNull<u8>,
}

/// Zeroes for so many values.
///
/// # Safety
///
/// The pool is alive; all zeroes are a T.
unsafe fn zeroes<T>(pool: *mut ngx_pool_t, count: usize) -> Option<NonNull<T>> {
    // SAFETY: nginx gives a chunk of this size, aligned for anything.
    NonNull::new(unsafe { ngx_pcalloc(pool, size_of::<T>().checked_mul(count)?) }.cast())
}

/// Lengths of the texts of the primaries and backups of an upstream.
///
/// # Safety
///
/// Called in `postconfiguration`; one of nginx's own balancers set the upstream up, so that `peer.data` is a list of
/// round robin peers.
pub unsafe fn texts(us: NonNull<ngx_http_upstream_srv_conf_t>) -> Option<(Vec<usize>, Vec<usize>)> {
    // SAFETY: see above; this process alone knows the lists, no lock is needed.
    unsafe {
        let primary = NonNull::new((*us.as_ptr()).peer.data.cast::<ngx_http_upstream_rr_peers_t>())?;
        let backup = NonNull::new((*primary.as_ptr()).next);
        let lengths = |list| Peers::of(list).map(|peer| (*peer.as_ptr()).server.len).collect();
        Some((lengths(primary), backup.map_or_else(Vec::new, lengths)))
    }
}

/// Appends blanks to the lists of an upstream until they have so many slots. A list of backups is made if there is none
/// and slots are asked for. None if there is no memory.
///
/// # Safety
///
/// Called in `postconfiguration`, where the balancer is set up and no zone is yet; one of nginx's own balancers set the
/// upstream up.
pub unsafe fn append(
    cf: NonNull<ngx_conf_t>,
    us: NonNull<ngx_http_upstream_srv_conf_t>,
    primary_slots: usize,
    backup_slots: usize,
) -> Option<()> {
    // SAFETY: see above. The lists and what is linked here live in the pool of the configuration, and this process alone
    // knows them: no lock is needed.
    unsafe {
        let pool = (*cf.as_ptr()).pool;
        let primary = NonNull::new((*us.as_ptr()).peer.data.cast::<ngx_http_upstream_rr_peers_t>())?;
        let blank = Blank { address: zeroes(pool, 1)?, text: zeroes(pool, TEXT_SIZE)? };
        (*blank.address.as_ptr()).sockaddr_in.sin_family = libc::AF_INET as _;
        extend(pool, primary, blank, primary_slots)?;
        if let Some(backup) = NonNull::new((*primary.as_ptr()).next) {
            extend(pool, backup, blank, backup_slots)?;
        } else if backup_slots > 0 {
            let backup = zeroes::<ngx_http_upstream_rr_peers_t>(pool, 1)?;
            (*backup.as_ptr()).name = (*primary.as_ptr()).name;
            extend(pool, backup, blank, backup_slots)?;
            (*primary.as_ptr()).next = backup.as_ptr();
        }
    }
    Some(())
}

/// Links blanks behind the peers of a list until it has so many slots.
///
/// # Safety
///
/// See [`append`].
unsafe fn extend(
    pool: *mut ngx_pool_t,
    list: NonNull<ngx_http_upstream_rr_peers_t>,
    blank: Blank,
    slots: usize,
) -> Option<()> {
    // SAFETY: see above; the array has room for each of the blanks.
    unsafe {
        let list = list.as_ptr();
        let blanks = slots.saturating_sub((*list).number);
        if blanks == 0 {
            return Some(());
        }
        let peers = zeroes::<ngx_http_upstream_rr_peer_t>(pool, blanks)?;
        let mut link = &raw mut (*list).peer;
        while !(*link).is_null() {
            link = &raw mut (**link).next;
        }
        for at in 0..blanks {
            let peer = peers.as_ptr().add(at);
            (*peer).sockaddr = blank.address.as_ptr().cast();
            (*peer).socklen = size_of::<sockaddr_in>() as _;
            // nginx gives each peer a whole buffer for its name, and for its text as much as it has.
            (*peer).name.data = blank.text.as_ptr();
            (*peer).server.data = blank.text.as_ptr();
            (*peer).server.len = TEXT_SIZE;
            (*peer).down = 1;
            *link = peer;
            link = &raw mut (*peer).next;
        }
        (*list).number += blanks;
        let weighted = (*list).total_weight != (*list).number;
        (*list).set_weighted(weighted.into());
    }
    Some(())
}
