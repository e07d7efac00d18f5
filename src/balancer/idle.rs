//! Idle connections to servers that left.
//!
//! nginx's keepalive keeps connections by address. One to a server that left would serve requests of another server that
//! comes to the same address, and would stay open until its timeout. So each worker notes which of its connections went
//! idle, and closes those to addresses that left: before it chooses a peer, and in a job of its own.

use std::cell::{Cell, RefCell};
use std::ffi::c_int;

use nginx_sys::{
    NGX_DONE, NGX_OK, ngx_connection_t, ngx_cycle, ngx_event_handler_pt, ngx_event_t, ngx_int_t,
    ngx_peer_connection_t, ngx_sockaddr_t, sockaddr, socklen_t,
};

use crate::model::departures::Departures;
use crate::zone::{Extra, extra::Left};

use super::connection;

/// Bits in a word.
const BITS: usize = u64::BITS as usize;

/// nginx's type of the function that an idle connection waits with.
type Handler = unsafe extern "C" fn(*mut ngx_event_t);

/// The idle connections of one upstream in one worker.
#[derive(Default)]
pub(super) struct Idle {
    /// A bit for each of the worker's connections: whether it went idle for this upstream. It may have been closed or
    /// taken since.
    went_idle: RefCell<Vec<u64>>,
    /// For each connection the hash of its address, where that is a unix socket: the kernel knows such an address by the
    /// name that the socket had when it was bound.
    sockets: RefCell<Vec<u64>>,
    /// keepalive's function, by which its idle connections are known.
    handler: Cell<Option<Handler>>,
    /// The departures that were looked at.
    seen: Cell<Departures>,
}

impl Idle {
    /// Notes a connection that keepalive has just taken.
    ///
    /// # Safety
    ///
    /// The connection is one of this worker's.
    pub unsafe fn note(&self, connection: *mut ngx_connection_t, socket: Option<u64>) {
        // SAFETY: see above. The array of a worker's connections lives as long as it, and does not grow.
        let (at, count, handler) = unsafe {
            let Some(at) = place(connection) else { return };
            (at, (*ngx_cycle).connection_n, (*(*connection).read).handler)
        };
        let (word, bit) = (at / BITS, 1_u64 << (at % BITS));
        let mut went_idle = self.went_idle.borrow_mut();
        if went_idle.len() <= word {
            // Once in a worker's life.
            went_idle.resize(count.div_ceil(BITS), 0);
        }
        if let Some(word) = went_idle.get_mut(word) {
            *word |= bit;
        }
        let mut sockets = self.sockets.borrow_mut();
        if socket.is_some() && sockets.is_empty() {
            sockets.resize(count, 0);
        }
        if let Some(place) = sockets.get_mut(at) {
            *place = socket.unwrap_or(0);
        }
        self.handler.set(handler);
    }

    /// Closes the idle connections to addresses that left since the last look.
    #[inline]
    pub fn look(&self, extra: &Extra) {
        if extra.departures() != self.seen.get() {
            self.close_left(extra);
        }
    }

    /// The same, when there are departures.
    #[cold]
    fn close_left(&self, extra: &Extra) {
        let (left, now) = extra.left_since(self.seen.get());
        self.seen.set(now);
        let Some(handler) = self.handler.get() else { return };
        // Closing a connection runs no code of this module, so that the bits stay borrowed.
        let mut went_idle = self.went_idle.borrow_mut();
        let sockets = self.sockets.borrow();
        for (index, word) in went_idle.iter_mut().enumerate() {
            let mut unseen = *word;
            while unseen != 0 {
                let bit = unseen & unseen.wrapping_neg();
                unseen &= !bit;
                let at = index * BITS + bit.trailing_zeros() as usize;
                let socket = sockets.get(at).copied().filter(|hash| *hash != 0);
                // SAFETY: one thread runs a worker, and the array of its connections lives as long as it.
                if !unsafe { keep(at, socket, handler, &left) } {
                    *word &= !bit;
                }
            }
        }
    }

    /// After a peer was chosen: drops an open connection that came with it, if the address left meanwhile.
    ///
    /// # Safety
    ///
    /// keepalive has just given `pc` a connection (`rc` is NGX_DONE).
    pub unsafe fn check(&self, extra: &Extra, pc: *mut ngx_peer_connection_t, rc: ngx_int_t) -> ngx_int_t {
        if rc != NGX_DONE as ngx_int_t || extra.departures() == self.seen.get() {
            return rc;
        }
        // SAFETY: see above. Without a connection nginx opens one.
        unsafe {
            let (left, _) = extra.left_since(self.seen.get());
            if !left.has((*pc).sockaddr, (*pc).socklen) {
                return rc;
            }
            connection::close((*pc).connection);
            (*pc).connection = std::ptr::null_mut();
            (*pc).set_cached(0);
            NGX_OK as ngx_int_t
        }
    }
}

/// The place of a connection among those of the worker.
///
/// # Safety
///
/// One thread runs a worker, whose configuration has its connections.
unsafe fn place(connection: *const ngx_connection_t) -> Option<usize> {
    // SAFETY: see above; the pointers are compared, not followed.
    unsafe {
        let first = (*ngx_cycle).connections.addr();
        let at = connection.addr().checked_sub(first)? / size_of::<ngx_connection_t>();
        (at < (*ngx_cycle).connection_n).then_some(at)
    }
}

/// Looks at a connection that once went idle. False if it is closed now, or no idle connection any more.
///
/// # Safety
///
/// `at` is a place among the worker's connections.
unsafe fn keep(at: usize, socket: Option<u64>, handler: Handler, left: &Left) -> bool {
    // SAFETY: see above.
    let Some(connection) = (unsafe { waiting(at, handler) }) else { return false };
    let has_left = match socket {
        Some(hash) => left.has_hash(hash),
        // SAFETY: the connection is open.
        None => peer_has_left(unsafe { (*connection).fd }, left),
    };
    if has_left {
        // SAFETY: this is what nginx itself does with idle connections when a worker is to end.
        unsafe {
            (*connection).set_close(1);
            handler((*connection).read);
        }
    }
    !has_left
}

/// The connection at a place, if it is open and idle, and waits with `handler`.
///
/// # Safety
///
/// `at` is a place among the worker's connections.
unsafe fn waiting(at: usize, handler: Handler) -> Option<*mut ngx_connection_t> {
    // SAFETY: see above; a free connection has a descriptor of -1 and is not looked at further.
    unsafe {
        if at >= (*ngx_cycle).connection_n {
            return None;
        }
        let connection = (*ngx_cycle).connections.add(at);
        if (*connection).fd == -1 || (*connection).idle() == 0 {
            return None;
        }
        let waits_with: ngx_event_handler_pt = (*(*connection).read).handler;
        std::ptr::fn_addr_eq(waits_with?, handler).then_some(connection)
    }
}

/// Whether the address that a socket is connected to left. One that cannot be told did.
fn peer_has_left(socket: c_int, left: &Left) -> bool {
    // SAFETY: the kernel writes at most as many bytes as it is told, and says how many an address has.
    unsafe {
        let mut address: ngx_sockaddr_t = std::mem::zeroed();
        let mut len = size_of::<ngx_sockaddr_t>() as socklen_t;
        let address: *mut sockaddr = (&raw mut address).cast();
        libc::getpeername(socket, address.cast(), &raw mut len) != 0
            || left.has(address, len.min(size_of::<ngx_sockaddr_t>() as socklen_t))
    }
}
