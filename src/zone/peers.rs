//! Lists and peers for those who hold their locks.
//!
//! Other processes read and write the words beside those that a lock guards, so that no reference to a whole peer or list
//! is made: each word is read and written by itself.

use std::marker::PhantomData;
use std::ops::Deref;
use std::ptr::NonNull;

use nginx_sys::{ngx_int_t, ngx_slab_pool_t, ngx_str_t, ngx_uint_t, sockaddr, socklen_t, time_t};

use super::nginx_peers::{RawPeer, RawPeers};
use super::place::Place;

/// A list that is mapped for `'a`.
#[derive(Clone, Copy)]
pub struct List<'a>(NonNull<RawPeers>, PhantomData<&'a RawPeers>);

/// A peer that stays for `'a`, with all that follow it, since a lock of its list is held.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Peer<'a>(NonNull<RawPeer>, PhantomData<&'a RawPeer>);

/// A list whose write lock is held for `'a`.
#[derive(Clone, Copy)]
pub struct ListMut<'a>(List<'a>);

/// A peer that the write locks of both lists guard for `'a`.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct PeerMut<'a>(Peer<'a>);

impl<'a> Deref for ListMut<'a> {
    type Target = List<'a>;

    fn deref(&self) -> &List<'a> {
        &self.0
    }
}

impl<'a> Deref for PeerMut<'a> {
    type Target = Peer<'a>;

    fn deref(&self) -> &Peer<'a> {
        &self.0
    }
}

/// Reads words, and writes them.
macro_rules! words {
    ($of:ident, $of_mut:ident: $($(#[$doc:meta])* $name:ident, $set:ident: $type:ty;)*) => {
        impl $of<'_> {
            $(
                $(#[$doc])*
                #[inline]
                pub fn $name(self) -> $type {
                    // SAFETY: the structure is mapped. nginx writes some words under a peer's own lock, so that this one
                    // may be a request old.
                    unsafe { (&raw const (*self.0.as_ptr()).$name).read_volatile() }
                }
            )*
        }

        impl $of_mut<'_> {
            $(
                #[doc = concat!("Writes what [`", stringify!($of), "::", stringify!($name), "`] reads.")]
                #[inline]
                pub fn $set(self, to: $type) {
                    // SAFETY: the structure is mapped, and the write lock that guards the word is held.
                    unsafe { (&raw mut (*self.0.0.as_ptr()).$name).write_volatile(to) }
                }
            )*
        }
    };
}

words! { List, ListMut:
    /// How many peers nginx counts.
    number, set_number: ngx_uint_t;
    /// Sum of their weights.
    total_weight, set_total_weight: ngx_uint_t;
    /// How many of them are not down.
    tries, set_tries: ngx_uint_t;
}

words! { Peer, PeerMut:
    /// Configured weight.
    weight, set_weight: ngx_int_t;
    /// Weight lowered after failures.
    effective_weight, set_effective_weight: ngx_int_t;
    /// Round robin's running sum.
    current_weight, set_current_weight: ngx_int_t;
    /// Limit of active requests.
    max_conns, set_max_conns: ngx_uint_t;
    /// Failures after which it is left alone.
    max_fails, set_max_fails: ngx_uint_t;
    /// For how long, in seconds.
    fail_timeout, set_fail_timeout: time_t;
    /// Failures counted.
    fails, set_fails: ngx_uint_t;
    /// When a request last failed, in seconds since the epoch.
    accessed, set_accessed: time_t;
    /// When nginx last judged it, likewise.
    checked, set_checked: time_t;
    /// nginx's word: 0 when the balancers may choose it.
    down, set_down: ngx_uint_t;
}

impl<'a> List<'a> {
    /// # Safety
    ///
    /// The list is mapped for `'a`.
    pub(super) unsafe fn new(list: NonNull<RawPeers>) -> Self {
        Self(list, PhantomData)
    }

    /// As nginx has it.
    pub(super) fn raw(self) -> NonNull<RawPeers> {
        self.0
    }

    /// The list of backups, of the list of primaries. It is linked once, and never freed.
    #[inline]
    pub fn backups(self) -> Option<Self> {
        // SAFETY: the list is mapped.
        let next = unsafe { (&raw const (*self.0.as_ptr()).next).read_volatile() };
        NonNull::new(next).map(|next| Self(next, PhantomData))
    }

    /// Whether nginx takes the only server for one that it has no choice but to try.
    #[inline]
    pub fn is_single(self) -> bool {
        // SAFETY: the list is mapped.
        unsafe { RawPeers::single_raw(self.0.as_ptr()) != 0 }
    }

    /// The slab pool of the zone; none where there is no zone.
    #[inline]
    pub fn pool(self) -> Option<NonNull<ngx_slab_pool_t>> {
        // SAFETY: the list is mapped; the word is written once, when the list is made.
        NonNull::new(unsafe { (*self.0.as_ptr()).shpool })
    }

    /// The peers.
    ///
    /// # Safety
    ///
    /// A lock of the list is held for `'a`.
    pub(super) unsafe fn peers(self) -> Peers<'a> {
        // SAFETY: the list is mapped, and the lock guards the word.
        let first = unsafe { (&raw const (*self.0.as_ptr()).peer).read() };
        Peers { next: NonNull::new(first).map(|first| Peer(first, PhantomData)) }
    }
}

impl<'a> ListMut<'a> {
    /// # Safety
    ///
    /// The list is mapped, and its write lock is held for `'a`.
    pub(super) unsafe fn new(list: NonNull<RawPeers>) -> Self {
        Self(List(list, PhantomData))
    }

    /// Where the pointer to the first peer is.
    pub fn first(self) -> Link<'a> {
        // SAFETY: the list is mapped; only an address is taken.
        let at = unsafe { &raw mut (*self.0.0.as_ptr()).peer };
        // SAFETY: a part of a list is nowhere near null; the write lock guards it.
        unsafe { Link::new(NonNull::new_unchecked(at)) }
    }

    /// Notes whether nginx is to take the only server for one that it has no choice but to try.
    pub fn set_single(self, single: bool) {
        // SAFETY: the list is mapped, and its write lock is held.
        unsafe { RawPeers::set_single_raw(self.0.0.as_ptr(), u32::from(single)) };
    }

    /// Notes whether any weight of the list differs from 1, as nginx does.
    pub fn settle_weighted(self) {
        let weighted = self.total_weight() != self.number();
        // SAFETY: the list is mapped, and its write lock is held.
        unsafe { RawPeers::set_weighted_raw(self.0.0.as_ptr(), u32::from(weighted)) };
    }
}

impl<'a> Peer<'a> {
    /// # Safety
    ///
    /// The peer stays for `'a`, with all that follow it: a lock of its list is held, or nobody else knows it.
    pub(super) unsafe fn new(peer: NonNull<RawPeer>) -> Self {
        Self(peer, PhantomData)
    }

    /// As nginx has it.
    pub(super) fn raw(self) -> NonNull<RawPeer> {
        self.0
    }

    /// Where it is, for those who know it longer than the lock is held.
    pub fn place(self) -> Place {
        Place(self.0)
    }

    /// Active requests, which nginx counts under the peer's own lock.
    #[inline]
    pub fn conns(self) -> ngx_uint_t {
        // SAFETY: the peer stays for 'a.
        unsafe { (&raw const (*self.0.as_ptr()).conns).read_volatile() }
    }

    /// Whether balancers may choose it.
    #[inline]
    pub fn is_up(self) -> bool {
        self.down() == 0
    }

    /// Text of its server.
    #[inline]
    pub fn server(self) -> &'a [u8] {
        // SAFETY: the peer stays for 'a, and its text is changed under the write locks only.
        unsafe { bytes((&raw const (*self.0.as_ptr()).server).read()) }
    }

    /// Its address, as nginx writes it.
    #[inline]
    pub fn name(self) -> &'a [u8] {
        // SAFETY: likewise.
        unsafe { bytes(self.raw_name()) }
    }

    /// Its name, which may not be what it seems before the lists were checked.
    pub(super) fn raw_name(self) -> ngx_str_t {
        // SAFETY: likewise.
        unsafe { (&raw const (*self.0.as_ptr()).name).read() }
    }

    /// Its address and the length of that; the same holds.
    pub(super) fn raw_address(self) -> (*const sockaddr, socklen_t) {
        // SAFETY: likewise.
        unsafe { ((*self.0.as_ptr()).sockaddr, (*self.0.as_ptr()).socklen) }
    }

    /// The bytes of its address.
    #[inline]
    pub fn address(self) -> &'a [u8] {
        let (address, len) = self.raw_address();
        // SAFETY: likewise; an address is as long as it says.
        unsafe { std::slice::from_raw_parts(address.cast(), len as usize) }
    }

    /// The one behind it.
    #[inline]
    fn next(self) -> Option<Self> {
        // SAFETY: see `new`.
        let next = unsafe { (&raw const (*self.0.as_ptr()).next).read() };
        NonNull::new(next).map(|next| Self(next, PhantomData))
    }
}

impl<'a> PeerMut<'a> {
    /// # Safety
    ///
    /// The peer stays for `'a`, with all that follow it: the write locks of both lists are held, or nobody else knows it.
    pub(super) unsafe fn new(peer: NonNull<RawPeer>) -> Self {
        Self(Peer(peer, PhantomData))
    }

    /// Where the pointer to the one behind it is.
    pub fn link(self) -> Link<'a> {
        // SAFETY: the peer stays for 'a; only an address is taken.
        let at = unsafe { &raw mut (*self.0.0.as_ptr()).next };
        // SAFETY: a part of a peer is nowhere near null; the write locks guard it.
        unsafe { Link::new(NonNull::new_unchecked(at)) }
    }
}

/// Where a pointer to a peer is, while the write locks of both lists are held.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Link<'a>(NonNull<*mut RawPeer>, PhantomData<&'a *mut RawPeer>);

impl<'a> Link<'a> {
    /// # Safety
    ///
    /// The write locks of both lists guard the pointer for `'a`, and the peer that it leads to.
    pub(super) unsafe fn new(at: NonNull<*mut RawPeer>) -> Self {
        Self(at, PhantomData)
    }

    /// The peer that it leads to.
    #[inline]
    pub fn get(self) -> Option<PeerMut<'a>> {
        // SAFETY: see `new`.
        NonNull::new(unsafe { self.0.read() }).map(|peer| PeerMut(Peer(peer, PhantomData)))
    }

    /// Lets it lead to another, or to none.
    #[inline]
    pub fn set(self, peer: Option<PeerMut<'a>>) {
        // SAFETY: likewise.
        unsafe { self.0.write(peer.map_or(std::ptr::null_mut(), |peer| peer.0.0.as_ptr())) };
    }

    /// Takes the peer out that it leads to.
    pub fn unlink(self) -> Option<PeerMut<'a>> {
        let peer = self.get()?;
        self.set(peer.link().get());
        Some(peer)
    }

    /// Puts a peer in, before the one that it leads to.
    pub fn insert(self, peer: PeerMut<'a>) {
        peer.link().set(self.get());
        self.set(Some(peer));
    }

    /// The first pointer from here on that leads to a peer which is `wanted`.
    pub fn find(self, wanted: impl Fn(PeerMut<'a>) -> bool) -> Option<Self> {
        let mut link = self;
        while let Some(peer) = link.get() {
            if wanted(peer) {
                return Some(link);
            }
            link = peer.link();
        }
        None
    }

    /// Takes out all peers from here on that are `wanted`; `taken` is told each.
    pub fn take(self, wanted: impl Fn(PeerMut<'a>) -> bool, mut taken: impl FnMut(PeerMut<'a>)) {
        let mut link = self;
        while let Some(next) = link.find(&wanted) {
            link = next;
            if let Some(peer) = link.unlink() {
                taken(peer);
            }
        }
    }

    /// The last pointer, which leads to none.
    pub fn end(self) -> Self {
        let mut link = self;
        while let Some(peer) = link.get() {
            link = peer.link();
        }
        link
    }
}

/// The peers of a list whose lock is held.
#[derive(Clone)]
pub struct Peers<'a> {
    /// The next one.
    next: Option<Peer<'a>>,
}

impl Peers<'_> {
    /// Peers that are linked, from one on.
    ///
    /// # Safety
    ///
    /// The lock that guards the links is held for `'a`, under which none of the peers is freed.
    pub(super) unsafe fn starting(first: *mut RawPeer) -> Self {
        Self { next: NonNull::new(first).map(|first| Peer(first, PhantomData)) }
    }
}

impl<'a> Iterator for Peers<'a> {
    type Item = Peer<'a>;

    #[inline]
    fn next(&mut self) -> Option<Peer<'a>> {
        let peer = self.next?;
        self.next = peer.next();
        Some(peer)
    }
}

/// The bytes of a string of nginx's.
///
/// # Safety
///
/// `string` points to its bytes, and they stay as they are for `'a`.
pub(super) unsafe fn bytes<'a>(string: ngx_str_t) -> &'a [u8] {
    if string.data.is_null() {
        return &[];
    }
    // SAFETY: see above.
    unsafe { std::slice::from_raw_parts(string.data, string.len) }
}
