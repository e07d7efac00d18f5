//! What the module keeps in the zone of an upstream, since it begins and ends with it.

use std::cell::UnsafeCell;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicBool, AtomicU64};

use nginx_sys::{ngx_peer_connection_t, sockaddr, socklen_t};

use crate::model::departures::{self, Departed, Departures, Seen};

#[cfg(nginx_peer_refs)]
use super::native::words::Words;
#[cfg(not(nginx_peer_refs))]
use super::slots::words::Words;

/// Departures that are remembered: a worker that is further behind takes every address for one that left.
const REMEMBERED: usize = 24;

/// The module's words in the zone of an upstream. All zeroes is the start.
#[repr(C)]
pub struct Extra {
    /// Revision that the peers show.
    pub applied: AtomicU64,
    /// Departures of the store's that they show.
    pub seen: Seen,
    /// nginx's count of changes to the lists at which the peers of an older configuration were told what is wanted of
    /// them.
    pub told: AtomicU64,
    /// The peers that left.
    departed: Departed<REMEMBERED>,
    /// Whether requests that find no peer here are handed to another pool.
    pub(super) has_fallback: AtomicBool,
    /// What this kind of nginx needs besides, which other processes write under their locks.
    pub(super) own: UnsafeCell<Words>,
}

/// Addresses that left between two moments.
pub struct Left(departures::Left<REMEMBERED>);

impl Left {
    /// Whether a peer with this address left.
    ///
    /// # Safety
    ///
    /// The address is `len` bytes long.
    pub unsafe fn has(&self, address: *const sockaddr, len: socklen_t) -> bool {
        // SAFETY: see above.
        self.has_hash(hash(unsafe { bytes(address, len) }))
    }

    /// Whether a peer left whose address has this hash.
    pub fn has_hash(&self, hash: u64) -> bool {
        self.0.has(hash)
    }
}

impl Extra {
    /// How many peers left so far.
    #[inline]
    pub fn departures(&self) -> Departures {
        self.departed.count()
    }

    /// The addresses that left since a moment.
    pub fn left_since(&self, then: Departures) -> (Left, Departures) {
        let (left, now) = self.departed.since(then);
        (Left(left), now)
    }

    /// Notes that a peer with this address leaves. The write locks of both lists are held, so that one process does so.
    pub(super) fn depart(&self, address: &[u8]) {
        self.departed.note(hash(address));
    }
}

/// The hash of the address that a request was given, if it is that of a unix socket.
///
/// # Safety
///
/// The request holds its peer.
pub unsafe fn socket_hash(pc: &ngx_peer_connection_t) -> Option<u64> {
    // SAFETY: see above.
    unsafe {
        let family = i32::from(pc.sockaddr.as_ref()?.sa_family);
        (family == libc::AF_UNIX).then(|| hash(bytes(pc.sockaddr, pc.socklen)))
    }
}

/// The bytes of an address.
///
/// # Safety
///
/// The address is `len` bytes long, and lives for `'a`.
unsafe fn bytes<'a>(address: *const sockaddr, len: socklen_t) -> &'a [u8] {
    // SAFETY: see above.
    unsafe { std::slice::from_raw_parts(address.cast(), len as usize) }
}

/// FNV-1a of an address: two that share a hash cost a connection that could have been kept.
pub(super) fn hash(bytes: &[u8]) -> u64 {
    // The kernel says how long the path of a unix socket is, nginx has the whole buffer.
    let end = bytes.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1);
    let bytes = bytes.get(..end).unwrap_or_default();
    bytes
        .iter()
        .fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x100_0000_01b3))
}

/// Where the words of this kind of nginx are.
pub(super) fn own(extra: ExtraPtr) -> *mut Words {
    // SAFETY: the words lie in a zone; only an address is taken.
    UnsafeCell::raw_get(unsafe { &raw const (*extra.as_ptr()).own })
}

/// The module's words of a zone, and where they are.
pub type ExtraPtr = NonNull<Extra>;
