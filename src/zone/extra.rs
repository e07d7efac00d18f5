//! What the module keeps in the zone of an upstream, since it begins and ends with it.

use std::ptr::NonNull;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use nginx_sys::{ngx_peer_connection_t, sockaddr, socklen_t};

use super::Current;
use super::backend::Backend;

/// Departures that are remembered: a worker that is further behind takes every address for one that left.
const REMEMBERED: usize = 24;

/// The module's words in the zone of an upstream. All zeroes is the start.
#[repr(C)]
pub struct Extra {
    /// Revision that the peers show.
    pub applied: AtomicU64,
    /// How many peers left.
    departures: AtomicU64,
    /// Hashes of the addresses of those that left last.
    departed: [AtomicU64; REMEMBERED],
    /// Whether requests that find no peer here are handed to another pool.
    pub(super) has_fallback: AtomicBool,
    /// What this kind of nginx needs besides.
    pub(super) own: <Current as Backend>::Words,
}

/// How many peers had left an upstream at some moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Departures(u64);

/// Addresses that left between two moments.
pub struct Left {
    /// Hashes; none if they were too many to remember.
    hashes: Option<([u64; REMEMBERED], usize)>,
}

impl Left {
    /// Whether a peer with this address left.
    ///
    /// # Safety
    ///
    /// The address is `len` bytes long.
    pub unsafe fn has(&self, address: *const sockaddr, len: socklen_t) -> bool {
        // SAFETY: see above.
        self.has_hash(unsafe { hash(address, len) })
    }

    /// Whether a peer left whose address has this hash.
    pub fn has_hash(&self, hash: u64) -> bool {
        self.hashes
            .as_ref()
            .is_none_or(|(hashes, count)| hashes.iter().take(*count).any(|left| *left == hash))
    }
}

impl Extra {
    /// How many peers left so far.
    #[inline]
    pub fn departures(&self) -> Departures {
        Departures(self.departures.load(Ordering::Acquire))
    }

    /// The addresses that left since a moment.
    pub fn left_since(&self, then: Departures) -> (Left, Departures) {
        let now = self.departures();
        let mut hashes = [0; REMEMBERED];
        let mut count = 0;
        for at in then.0..now.0 {
            if count == REMEMBERED {
                return (Left { hashes: None }, now);
            }
            if let (Some(to), Some(from)) = (hashes.get_mut(count), self.place(at)) {
                *to = from.load(Ordering::Relaxed);
            }
            count += 1;
        }
        // Places that were written again meanwhile hold later departures.
        std::sync::atomic::fence(Ordering::Acquire);
        let overwritten = self.departures().0.saturating_sub(then.0) >= REMEMBERED as u64;
        (Left { hashes: (!overwritten).then_some((hashes, count)) }, now)
    }

    /// Notes that a peer leaves.
    ///
    /// # Safety
    ///
    /// The write locks of both lists are held; the address is `len` bytes long.
    pub(super) unsafe fn depart(&self, address: *const sockaddr, len: socklen_t) {
        let at = self.departures.load(Ordering::Relaxed);
        if let Some(place) = self.place(at) {
            // SAFETY: see above.
            place.store(unsafe { hash(address, len) }, Ordering::Relaxed);
        }
        self.departures.store(at.wrapping_add(1), Ordering::Release);
    }

    /// Where a departure is remembered.
    fn place(&self, at: u64) -> Option<&AtomicU64> {
        self.departed.get((at % REMEMBERED as u64) as usize)
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
        (family == libc::AF_UNIX).then(|| hash(pc.sockaddr, pc.socklen))
    }
}

/// FNV-1a: two addresses that share a hash cost a connection that could have been kept.
///
/// # Safety
///
/// The address is `len` bytes long.
pub(super) unsafe fn hash(address: *const sockaddr, len: socklen_t) -> u64 {
    // SAFETY: see above.
    let bytes = unsafe { std::slice::from_raw_parts(address.cast::<u8>(), len as usize) };
    // The kernel says how long the path of a unix socket is, nginx has the whole buffer.
    let end = bytes.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1);
    let bytes = bytes.get(..end).unwrap_or_default();
    bytes
        .iter()
        .fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x100_0000_01b3))
}

/// The module's words of a zone, and where they are.
pub type ExtraPtr = NonNull<Extra>;
