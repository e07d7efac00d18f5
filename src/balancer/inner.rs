//! A balancer that this module covers: its functions and data, in the place of which nginx finds this module's.

use std::ffi::c_void;
use std::ptr;

use nginx_sys::{
    NGX_OK, ngx_event_free_peer_pt, ngx_event_get_peer_pt, ngx_event_notify_peer_pt, ngx_http_request_t,
    ngx_int_t, ngx_palloc, ngx_peer_connection_t, ngx_str_t, ngx_uint_t,
};

use super::connection::{self, Sessions};

/// nginx's type of the function that chooses a peer.
pub(super) type GetPeer = unsafe extern "C" fn(*mut ngx_peer_connection_t, *mut c_void) -> ngx_int_t;

/// What the balancer put where this module's own words are now.
#[derive(Clone, Copy)]
pub(super) struct Inner {
    /// Its data.
    pub data: *mut c_void,
    /// Chooses a peer.
    pub get: ngx_event_get_peer_pt,
    /// Gives the peer back.
    pub free: ngx_event_free_peer_pt,
    /// Is told how far the request got.
    pub notify: ngx_event_notify_peer_pt,
    /// Keeps TLS sessions.
    pub sessions: Sessions,
}

impl Inner {
    /// Nothing: no balancer has prepared.
    pub const NONE: Self = Self {
        data: ptr::null_mut(),
        get: None,
        free: None,
        notify: None,
        sessions: Sessions { set: None, save: None },
    };

    /// What `pc` holds now.
    pub fn of(pc: &ngx_peer_connection_t) -> Self {
        Self { data: pc.data, get: pc.get, free: pc.free, notify: pc.notify, sessions: Sessions::of(pc) }
    }

    /// Puts these back.
    pub fn put_into(&self, pc: &mut ngx_peer_connection_t) {
        let Self { data, get, free, notify, sessions } = *self;
        (pc.data, pc.get, pc.free) = (data, get, free);
        pc.notify = notify;
        sessions.put_into(pc);
    }

    /// Puts this module's words where these were.
    ///
    /// # Safety
    ///
    /// `pc` holds these. `data` is a structure that begins with a [`Head`], which holds them, and lives as long as the
    /// request; `get` and `free` are for such data.
    pub unsafe fn cover(
        &self,
        pc: &mut ngx_peer_connection_t,
        data: *mut c_void,
        get: ngx_event_get_peer_pt,
        free: ngx_event_free_peer_pt,
    ) {
        pc.data = data;
        pc.get = get;
        pc.free = free;
        // nginx asks whether these are there at all.
        pc.notify = self.notify.and(Some(notify_peer));
        let Sessions { set, save } = self.sessions;
        Sessions { set: set.and(Some(set_session)), save: save.and(Some(save_session)) }.put_into(pc);
    }
}

/// How all begins that this module puts in the place of a balancer's data.
#[repr(C)]
pub(super) struct Head {
    /// The balancer.
    pub inner: Inner,
    /// Whether a server took a connection and then failed to agree on TLS, which nginx takes for no connection.
    pub was_reached: bool,
}

impl Head {
    /// For this balancer.
    pub fn new(inner: Inner) -> Self {
        Self { inner, was_reached: false }
    }

    /// Notes whether a server was reached.
    ///
    /// # Safety
    ///
    /// `pc` is the connection of the request that this belongs to, and is about to give its peer back.
    pub unsafe fn note(&mut self, pc: *const ngx_peer_connection_t) {
        // SAFETY: see above; TLS begins when the socket is connected.
        self.was_reached |= unsafe { connection::has_tls((*pc).connection) };
    }
}

/// As many of these tries as `proxy_next_upstream_tries` leaves to a request that was given so many peers.
///
/// # Safety
///
/// The request lives.
pub(super) unsafe fn within_limit(r: *const ngx_http_request_t, attempts: usize, tries: usize) -> usize {
    // SAFETY: see above; the settings of an upstream live as long as the configuration.
    let limit = unsafe { (*r).upstream.as_ref().and_then(|upstream| upstream.conf.as_ref()) }
        .map_or(0, |conf| conf.next_upstream_tries);
    if limit == 0 { tries } else { tries.min(limit.saturating_sub(attempts)) }
}

/// Keeps the name of the peer for the log: when it is written, another server may be where this one was, or none. Without
/// memory it is left where it is.
///
/// # Safety
///
/// `pc` is the connection of the request, and holds a peer.
pub(super) unsafe fn keep_name(r: *const ngx_http_request_t, pc: *mut ngx_peer_connection_t) {
    // SAFETY: see above: the name stays as long as the request holds the peer. nginx reads the copy, and nothing of
    // nginx's writes to it.
    unsafe {
        let Some(name) = (*pc).name.as_ref() else { return };
        let copy = ngx_palloc((*r).pool, size_of::<ngx_str_t>() + name.len).cast::<ngx_str_t>();
        if !copy.is_null() {
            let data = copy.add(1).cast::<u8>();
            data.copy_from_nonoverlapping(name.data, name.len);
            copy.write(ngx_str_t { len: name.len, data });
            (*pc).name = copy;
        }
    }
}

/// nginx's entry: the request got so far.
unsafe extern "C" fn notify_peer(pc: *mut ngx_peer_connection_t, head: *mut c_void, kind: ngx_uint_t) {
    // SAFETY: nginx passes the words that `cover` put there; the function is the balancer's own, with its own data.
    unsafe {
        let inner = (*head.cast::<Head>()).inner;
        if let Some(notify) = inner.notify {
            notify(pc, inner.data, kind);
        }
    }
}

/// nginx's entry: offer a TLS session.
unsafe extern "C" fn set_session(pc: *mut ngx_peer_connection_t, head: *mut c_void) -> ngx_int_t {
    // SAFETY: likewise.
    unsafe {
        let inner = (*head.cast::<Head>()).inner;
        inner.sessions.set.map_or(NGX_OK as ngx_int_t, |set| set(pc, inner.data))
    }
}

/// nginx's entry: keep a TLS session.
unsafe extern "C" fn save_session(pc: *mut ngx_peer_connection_t, head: *mut c_void) {
    // SAFETY: likewise.
    unsafe {
        let inner = (*head.cast::<Head>()).inner;
        if let Some(save) = inner.sessions.save {
            save(pc, inner.data);
        }
    }
}
