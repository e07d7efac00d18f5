//! Checks that nginx's structures are what the module was compiled for.
//!
//! nginx compares a version and a signature when it loads a module, but forks with other structures may carry the same
//! ones. So the start-up walks every list with our offsets before anything is written through them.

use std::mem::{offset_of, size_of};

use nginx_sys::ngx_peer_connection_t;

use super::handle::Zone;
use super::nginx_peers::{RawPeer, RawPeers, RawRequest, RequestUpstream, UpstreamConf};

/// Longest list that the walk believes in.
const PEERS_MAX: usize = 1_000_000;

/// Longest name that the start-up check believes in: nginx's buffers for it, NGX_SOCKADDR_STRLEN, are shorter.
const NAME_MAX: usize = 256;

/// Longest `socklen` that a peer can have: that of a unix socket.
const SOCKLEN_MAX: u32 = size_of::<libc::sockaddr_un>() as u32;

/// Sizes and offsets in bytes; `nuc_layout_t` of csrc/shim.h.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Layout {
    /// Size of a peer.
    peer_size: usize,
    /// Its address.
    peer_sockaddr: usize,
    /// Length of its address.
    peer_socklen: usize,
    /// Text of its server.
    peer_server: usize,
    /// When nginx last judged it.
    peer_checked: usize,
    /// How long it is left alone after failures.
    peer_fail_timeout: usize,
    /// Its name.
    peer_name: usize,
    /// Its weight.
    peer_weight: usize,
    /// Its active requests.
    peer_conns: usize,
    /// Whether it is down.
    peer_down: usize,
    /// Its lock.
    peer_lock: usize,
    /// The next peer.
    peer_next: usize,
    /// Size of a list.
    peers_size: usize,
    /// Its slab pool.
    peers_shpool: usize,
    /// Its lock.
    peers_rwlock: usize,
    /// Sum of the weights.
    peers_total_weight: usize,
    /// Usable peers.
    peers_tries: usize,
    /// The list of backups.
    peers_next: usize,
    /// The first peer.
    peers_peer: usize,
    /// Size of an upstream's settings.
    upstream_conf_size: usize,
    /// An upstream's balancer.
    upstream_conf_peer: usize,
    /// An upstream's zone.
    upstream_conf_shm_zone: usize,
    /// A request's connection to a peer.
    upstream_peer: usize,
    /// Size of a connection to a peer.
    peer_connection_size: usize,
    /// Size of a request.
    request_size: usize,
}

unsafe extern "C" {
    /// Fills in what the C compiler says.
    fn nuc_layout(layout: *mut Layout);
}

/// What bindgen says.
const RUST: Layout = Layout {
    peer_size: size_of::<RawPeer>(),
    peer_sockaddr: offset_of!(RawPeer, sockaddr),
    peer_socklen: offset_of!(RawPeer, socklen),
    peer_server: offset_of!(RawPeer, server),
    peer_checked: offset_of!(RawPeer, checked),
    peer_fail_timeout: offset_of!(RawPeer, fail_timeout),
    peer_name: offset_of!(RawPeer, name),
    peer_weight: offset_of!(RawPeer, weight),
    peer_conns: offset_of!(RawPeer, conns),
    peer_down: offset_of!(RawPeer, down),
    peer_lock: offset_of!(RawPeer, lock),
    peer_next: offset_of!(RawPeer, next),
    peers_size: size_of::<RawPeers>(),
    peers_shpool: offset_of!(RawPeers, shpool),
    peers_rwlock: offset_of!(RawPeers, rwlock),
    peers_total_weight: offset_of!(RawPeers, total_weight),
    peers_tries: offset_of!(RawPeers, tries),
    peers_next: offset_of!(RawPeers, next),
    peers_peer: offset_of!(RawPeers, peer),
    upstream_conf_size: size_of::<UpstreamConf>(),
    upstream_conf_peer: offset_of!(UpstreamConf, peer),
    upstream_conf_shm_zone: offset_of!(UpstreamConf, shm_zone),
    upstream_peer: offset_of!(RequestUpstream, peer),
    peer_connection_size: size_of::<ngx_peer_connection_t>(),
    request_size: size_of::<RawRequest>(),
};

/// Whether the C compiler and bindgen agree.
pub fn compilers_agree() -> bool {
    let mut c = Layout::default();
    // SAFETY: the shim writes the fields of this structure and nothing else; both sides declare it alike.
    unsafe { nuc_layout(&raw mut c) };
    c == RUST
}

/// Walks the lists of a zone and compares what is counted with what nginx wrote.
///
/// Called by the master when the zones of a configuration are ready and no worker uses them. The error says where the
/// walk left the expected.
///
/// # Errors
///
/// Words for [`crate::model::snapshot::StaticReason::Layout`].
pub fn check(zone: &Zone) -> Result<(), &'static str> {
    if !compilers_agree() {
        return Err("the compilers disagree");
    }
    zone.check_lists(PEERS_MAX)
}

impl Zone {
    /// Walks both lists and compares what is counted with what nginx wrote; see [`check`].
    fn check_lists(&self, max: usize) -> Result<(), &'static str> {
        let lists = self.read().ok_or("lock of the peers")?;
        for (_, list) in lists.iter() {
            let (mut number, mut weight, mut usable) = (0_usize, 0_isize, 0_usize);
            if list.number() > max {
                return Err("number of peers");
            }
            // If the structures are not what we think, the first check that fails ends the walk; until then only words of
            // nginx's own lists are followed.
            for peer in lists.peers(list) {
                let ((address, socklen), name) = (peer.raw_address(), peer.raw_name());
                if number == list.number() {
                    return Err("end of the list of peers");
                }
                if address.is_null() || socklen == 0 || socklen > SOCKLEN_MAX {
                    return Err("address of a peer");
                }
                if name.data.is_null() || name.len > NAME_MAX {
                    return Err("name of a peer");
                }
                number += 1;
                weight = weight.wrapping_add(peer.weight());
                usable += usize::from(peer.is_up());
            }
            if number != list.number() {
                return Err("number of peers");
            }
            if usize::try_from(weight) != Ok(list.total_weight()) {
                return Err("sum of the weights");
            }
            if usable != list.tries() {
                return Err("number of usable peers");
            }
        }
        Ok(())
    }
}
