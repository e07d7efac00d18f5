//! Reading live peers: everything is copied out under the read locks, and used after them.

use std::mem::offset_of;
use std::ops::Range;
use std::ptr::NonNull;

use nginx_sys::{
    ngx_http_upstream_rr_peer_t, ngx_http_upstream_rr_peers_t, ngx_http_upstream_srv_conf_t, ngx_pagesize,
    ngx_peer_connection_t, ngx_slab_pool_t, ngx_str_t, sockaddr, socklen_t,
};

use crate::model::id::{Group, Slot};
use crate::model::params::Params;
use crate::model::snapshot::{Faults, Memory, Totals, Zombies};

use super::Current;
use super::backend::Backend;
use super::extra::ExtraPtr;
use super::place::Place;

/// Rows that a copy makes room for beyond those it expects, so that a list that grows meanwhile rarely needs a second
/// try.
const SLACK: usize = 8;

/// Bytes of name and server text that a copy expects of a peer.
const TEXT_PER_PEER: usize = 64;

/// Longest name that the start-up check believes in: nginx's buffers for it, NGX_SOCKADDR_STRLEN, are shorter.
const NAME_MAX: usize = 256;

/// Longest `socklen` that a peer can have: that of a unix socket.
const SOCKLEN_MAX: u32 = size_of::<libc::sockaddr_un>() as u32;

/// The peers of one upstream: primaries, and backups where there are any.
///
/// In a `zone` they are in memory that all workers share; without one they are this worker's own, nginx's locks do
/// nothing, and only this thread reads them.
#[derive(Clone, Copy, Debug)]
pub struct Zone {
    /// The primaries; `next` leads to the backups.
    pub(super) primary: NonNull<ngx_http_upstream_rr_peers_t>,
    /// The module's words in the zone; none while the upstream is only read.
    extra: Option<ExtraPtr>,
}

/// What one peer was at one moment. Texts are ranges of [`Copy::text`].
#[derive(Clone, Debug)]
pub struct Row {
    /// Where it stood.
    pub slot: Slot,
    /// Text of the `server` directive.
    pub server: Range<usize>,
    /// Address, as nginx writes it.
    pub name: Range<usize>,
    /// weight, max_conns, max_fails, fail_timeout.
    pub params: Params,
    /// Weight lowered after failures.
    pub effective_weight: i64,
    /// Round robin's running sum.
    pub current_weight: i64,
    /// Active requests.
    pub conns: u64,
    /// Failures counted.
    pub fails: u64,
    /// When a request last failed, in seconds since the epoch; 0 for never.
    pub accessed: i64,
    /// When nginx last judged it, likewise.
    pub checked: i64,
    /// nginx's word: 0 when the balancers may choose it.
    pub down: u64,
    /// Whether nginx makes and removes it as a name resolves.
    pub managed: bool,
    /// Where it is, while the count of changes stays that of the copy.
    pub place: Place,
}

/// All peers of an upstream at one moment.
#[derive(Clone, Debug, Default)]
pub struct Copy {
    /// Primaries, then backups, each in nginx's order.
    pub rows: Vec<Row>,
    /// The bytes of all names and server texts.
    pub text: Vec<u8>,
    /// How often the lists changed.
    pub membership: u64,
    /// Whether there is but one server, which nginx treats otherwise.
    pub single: bool,
    /// What the list of primaries says of itself.
    pub primary: Totals,
    /// The same of the backups.
    pub backup: Option<Totals>,
    /// Peers that left while requests used them.
    pub zombies: Zombies,
    /// What is not as it must be.
    pub faults: Faults,
}

impl Copy {
    /// Room for so many rows, and so many bytes of text.
    fn with_room(rows: usize, text: usize) -> Self {
        Self { rows: Vec::with_capacity(rows), text: Vec::with_capacity(text), ..Self::default() }
    }

    /// The bytes of one of the texts of a row.
    pub fn bytes(&self, range: &Range<usize>) -> &[u8] {
        self.text.get(range.clone()).unwrap_or_default()
    }

    /// One of the texts of a row; bytes that are no UTF-8 are replaced.
    #[cfg(all(test, feature = "nginx-objs"))]
    pub fn string(&self, range: &Range<usize>) -> String {
        String::from_utf8_lossy(self.bytes(range)).into_owned()
    }
}

/// The peers of a list whose lock is held.
#[derive(Clone)]
pub(super) struct Peers {
    /// The next one.
    next: *mut ngx_http_upstream_rr_peer_t,
}

impl Peers {
    /// # Safety
    ///
    /// The lock of `list` is held for as long as the iterator and what it returns are used.
    pub(super) unsafe fn of(list: NonNull<ngx_http_upstream_rr_peers_t>) -> Self {
        // SAFETY: a `Zone` holds lists that nginx made; they are mapped as long as their configuration lives.
        let next = unsafe { (*list.as_ptr()).peer };
        Self { next }
    }

    /// Peers that are linked, from one on.
    ///
    /// # Safety
    ///
    /// The lock that guards the links is held, likewise.
    #[cfg(not(nginx_peer_refs))]
    pub(super) unsafe fn starting(first: *mut ngx_http_upstream_rr_peer_t) -> Self {
        Self { next: first }
    }
}

impl Iterator for Peers {
    type Item = NonNull<ngx_http_upstream_rr_peer_t>;

    fn next(&mut self) -> Option<Self::Item> {
        let peer = NonNull::new(self.next)?;
        // SAFETY: peers that are linked while the lock is held are not freed before it is given back.
        self.next = unsafe { (*peer.as_ptr()).next };
        Some(peer)
    }
}

impl Zone {
    /// The peers of an upstream.
    ///
    /// # Safety
    ///
    /// `us` is an upstream of the running configuration, one of nginx's own balancers set it up (so that `peer.data`
    /// is a list of round robin peers), and its zone, if it has one, is initialized.
    pub unsafe fn of(us: NonNull<ngx_http_upstream_srv_conf_t>) -> Option<Self> {
        // SAFETY: see above; `peer.data` is written once, by the zone's init.
        NonNull::new(unsafe { (*us.as_ptr()).peer.data }.cast()).map(|primary| Self { primary, extra: None })
    }

    /// The same peers, with the module's words in their zone.
    ///
    /// # Safety
    ///
    /// The words lie in the zone of these peers, and there are no others.
    pub unsafe fn with_extra(self, extra: ExtraPtr) -> Self {
        Self { extra: Some(extra), ..self }
    }

    /// The module's words in the zone.
    pub fn extra(&self) -> Option<ExtraPtr> {
        self.extra
    }

    /// How often the lists changed.
    pub fn membership(&self) -> u64 {
        Current::membership(self)
    }

    /// The servers of a list whose lock is held for as long as what is returned is used.
    pub(super) fn servers(
        &self,
        list: NonNull<ngx_http_upstream_rr_peers_t>,
    ) -> impl Iterator<Item = NonNull<ngx_http_upstream_rr_peer_t>> + use<'_> {
        // SAFETY: see above.
        unsafe { Peers::of(list) }.filter(|peer| !Current::is_blank(self, *peer))
    }

    /// The slab pool of the zone; none where there is no zone.
    pub fn pool(&self) -> Option<NonNull<ngx_slab_pool_t>> {
        // SAFETY: the word is written once, when the list is made.
        NonNull::new(unsafe { (*self.primary.as_ptr()).shpool })
    }

    /// Room for a copy, which is probably enough.
    pub fn room(&self) -> Copy {
        let (rows, text) = self.expected();
        Copy::with_room(rows, text)
    }

    /// Copies all peers out within the room that there is; false if it is too little. None if their locks are stuck.
    pub fn copy_within(&self, copy: &mut Copy) -> Option<bool> {
        match self.copy_into(copy) {
            Ok(()) => Some(true),
            Err(Some(_)) => Some(false),
            Err(None) => None,
        }
    }

    /// Copies all peers out, from one moment. None if their locks are stuck, see [`Zone::write`].
    pub fn copy(&self) -> Option<Copy> {
        let (mut rows, mut text) = self.expected();
        loop {
            let mut copy = Copy::with_room(rows, text);
            match self.copy_into(&mut copy) {
                Ok(()) => return Some(copy),
                Err(None) => return None,
                Err(Some((needed_rows, needed_text))) => {
                    rows = needed_rows.saturating_add(SLACK);
                    text = needed_text.saturating_add(SLACK * TEXT_PER_PEER);
                }
            }
        }
    }

    /// Rows and bytes of text that a copy probably needs. The numbers are read without locks: they are a guess.
    pub fn expected(&self) -> (usize, usize) {
        // SAFETY: the lists are mapped; a torn guess costs a second try and nothing else.
        let rows = unsafe {
            let backup = NonNull::new((&raw const (*self.primary.as_ptr()).next).read_volatile());
            let lists = [(Group::Primary, Some(self.primary)), (Group::Backup, backup)].into_iter();
            let sums = lists.filter_map(|(group, list)| list.map(|list| Current::sums(self, group, list)));
            sums.fold(SLACK, |rows, sums| rows.saturating_add(sums.number as usize))
        };
        (rows, rows.saturating_mul(TEXT_PER_PEER))
    }

    /// Copies within the room that `copy` has, since nothing may be allocated under the locks; else says how much room
    /// is needed.
    fn copy_into(&self, copy: &mut Copy) -> Result<(), Option<(usize, usize)>> {
        let lists = self.read().ok_or(None)?;
        let (mut rows, mut text) = (0_usize, 0_usize);
        let mut fits = true;
        // SAFETY: the read locks are held by `lists`. nginx writes the counters of a peer under the read lock and the
        // peer's own lock, so a counter may be one request old; each is a word.
        unsafe {
            for (group, list) in lists.iter() {
                let sums = Current::sums(self, group, list);
                let mut totals = Totals {
                    number: sums.number,
                    total_weight: sums.weight,
                    tries: sums.usable,
                    ..Totals::default()
                };
                for (index, place) in self.servers(list).enumerate() {
                    let peer = &*place.as_ptr();
                    rows += 1;
                    text = text.saturating_add(peer.name.len).saturating_add(peer.server.len);
                    fits = fits && rows <= copy.rows.capacity() && text <= copy.text.capacity();
                    totals.counted += 1;
                    totals.counted_weight = totals.counted_weight.wrapping_add(peer.weight as u64);
                    totals.counted_usable += u64::from(peer.down == 0);
                    totals.conns = totals.conns.wrapping_add(peer.conns as u64);
                    totals.refs = totals.refs.wrapping_add(Current::refs(peer));
                    if fits {
                        let row = row(place, Slot { group, index }, &mut copy.text);
                        copy.rows.push(row);
                    }
                }
                match group {
                    Group::Primary => copy.primary = totals,
                    Group::Backup => copy.backup = Some(totals),
                }
            }
            copy.single = (*lists.primary.as_ptr()).single() != 0;
            copy.zombies = Current::zombies(self, &lists);
            copy.faults = Current::faults(self, &lists);
        }
        copy.membership = self.membership();
        if fits { Ok(()) } else { Err(Some((rows, text))) }
    }

    /// How many of the peers that are not down have an address that `wanted` takes; 0 if the locks are stuck. `wanted` must
    /// neither allocate nor panic.
    pub fn count_usable(&self, wanted: impl Fn(*const sockaddr, socklen_t) -> bool) -> usize {
        let Some(lists) = self.read() else { return 0 };
        // SAFETY: the read locks are held, so that linked peers and their addresses stay.
        let peers = lists.iter().flat_map(|(_, list)| unsafe { Peers::of(list) });
        peers
            // SAFETY: likewise.
            .filter(|peer| unsafe {
                let peer = peer.as_ptr();
                (*peer).down == 0 && wanted((*peer).sockaddr, (*peer).socklen)
            })
            .count()
    }

    /// Memory of the zone; none where there is no zone.
    pub fn memory(&self) -> Option<Memory> {
        let pool = self.pool()?.as_ptr();
        // SAFETY: the pool is mapped as long as the zone. `start` and `end` never change after the start; `pfree` is a
        // word that other workers write, so it is read once and may be one allocation old.
        unsafe {
            let page = (&raw const ngx_pagesize).read();
            let bytes = ((*pool).end as usize).saturating_sub((*pool).start as usize);
            Some(Memory {
                size: ((*pool).end as usize).saturating_sub(pool as usize) as u64,
                page: page as u64,
                pages_total: bytes.checked_div(page).unwrap_or(0) as u64,
                pages_free: (&raw const (*pool).pfree).read_volatile() as u64,
            })
        }
    }

    /// Walks both lists and compares what is counted with what nginx wrote; see [`super::layout::check`].
    pub(super) fn check_lists(&self, max: usize) -> Result<(), &'static str> {
        let lists = self.read().ok_or("lock of the peers")?;
        for (_, list) in lists.iter() {
            let (mut number, mut weight, mut usable) = (0_usize, 0_isize, 0_usize);
            // SAFETY: the read locks are held. If the structures are not what we think, the first plausibility check
            // that fails ends the walk; until then only words of nginx's own lists are followed.
            unsafe {
                let list = &*list.as_ptr();
                if list.number > max {
                    return Err("number of peers");
                }
                for peer in Peers::of(NonNull::from(list)) {
                    let peer = &*peer.as_ptr();
                    if number == list.number {
                        return Err("end of the list of peers");
                    }
                    if peer.sockaddr.is_null() || peer.socklen == 0 || peer.socklen > SOCKLEN_MAX {
                        return Err("address of a peer");
                    }
                    if peer.name.data.is_null() || peer.name.len > NAME_MAX {
                        return Err("name of a peer");
                    }
                    number += 1;
                    weight = weight.wrapping_add(peer.weight);
                    usable += usize::from(peer.down == 0);
                }
                if number != list.number {
                    return Err("number of peers");
                }
                if usize::try_from(weight) != Ok(list.total_weight) {
                    return Err("sum of the weights");
                }
                if usable != list.tries {
                    return Err("number of usable peers");
                }
            }
        }
        Ok(())
    }
}

/// Copies one peer; `text` has room for its texts.
///
/// # Safety
///
/// The lock of the peer's list is held.
pub(super) unsafe fn row(place: NonNull<ngx_http_upstream_rr_peer_t>, slot: Slot, text: &mut Vec<u8>) -> Row {
    // SAFETY: the lock is held, so that neither a linked peer nor its texts are freed or changed.
    let peer = unsafe { place.as_ref() };
    // SAFETY: likewise.
    let (server, name) = unsafe { (append(text, &peer.server), append(text, &peer.name)) };
    Row {
        slot,
        server,
        name,
        params: Params {
            weight: u64::try_from(peer.weight).unwrap_or(0),
            max_conns: peer.max_conns as u64,
            max_fails: peer.max_fails as u64,
            fail_timeout: u64::try_from(peer.fail_timeout).unwrap_or(0),
        },
        effective_weight: peer.effective_weight as i64,
        current_weight: peer.current_weight as i64,
        conns: peer.conns as u64,
        fails: peer.fails as u64,
        accessed: peer.accessed,
        checked: peer.checked,
        down: peer.down as u64,
        managed: Current::managed(peer),
        place: Place(place),
    }
}

/// Appends a string to the text, and says where it stands.
///
/// # Safety
///
/// `string` points to its bytes.
unsafe fn append(text: &mut Vec<u8>, string: &ngx_str_t) -> Range<usize> {
    let start = text.len();
    // SAFETY: see above.
    text.extend_from_slice(unsafe { bytes(string) });
    start..text.len()
}

/// The bytes of a string of nginx's.
///
/// # Safety
///
/// `string` points to its bytes, and they live as long as it does.
pub(super) unsafe fn bytes(string: &ngx_str_t) -> &[u8] {
    if string.data.is_null() {
        return &[];
    }
    // SAFETY: see above.
    unsafe { std::slice::from_raw_parts(string.data, string.len) }
}

/// A peer that a balancer chose for a request, while the request holds it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Chosen(NonNull<ngx_http_upstream_rr_peer_t>);

impl Chosen {
    /// Whether what nginx notes of a peer for the log may be another's by then.
    pub const NAMES_CHANGE: bool = Current::NAMES_CHANGE;

    /// The peer that `pc` was given; none if it was given none of a list's.
    ///
    /// # Safety
    ///
    /// One of nginx's balancers has just given `pc` a peer, so that `pc->name` is the `name` of that peer.
    pub unsafe fn of(pc: &ngx_peer_connection_t) -> Option<Self> {
        let name = NonNull::new(pc.name)?;
        // SAFETY: see above: the name lies in the peer, which is not freed while the request holds it.
        unsafe {
            let peer = name.byte_sub(offset_of!(ngx_http_upstream_rr_peer_t, name)).cast();
            let peer: NonNull<ngx_http_upstream_rr_peer_t> = peer;
            ((*peer.as_ptr()).sockaddr == pc.sockaddr).then_some(Self(peer))
        }
    }

    /// Whether the peer left its list since it was chosen.
    ///
    /// # Safety
    ///
    /// The request still holds the peer, which is one of the zone's.
    pub unsafe fn has_left(self, zone: &Zone) -> bool {
        // SAFETY: see above.
        unsafe { Current::has_left(zone, self.0) }
    }
}
