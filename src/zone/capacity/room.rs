//! How many slots the upstreams of a zone get: what nginx's slab needs for them, and what a zone has.
//!
//! nginx's `ngx_slab.c` gives chunks of powers of two from pages that hold one size each, and whole pages above half a
//! page. While a zone is set up nothing is freed, so that the number of pages that are taken depends on how many chunks
//! of each size there are, and not on their order. That is all that this model counts.

use nginx_sys::{ngx_slab_page_t, ngx_slab_pool_t, ngx_slab_stat_t, ngx_sockaddr_t, ngx_str_t};

use crate::zone::extra::Extra;
use crate::zone::nginx_peers::{RawPeer, RawPeers};

/// Bytes that the text of a server may have in any slot: more than addresses and most host names need, and a power of
/// two, so that a chunk of the slab is used whole.
pub const TEXT_SIZE: usize = 128;

/// Slots that a list of primaries gets by itself if there is memory: nginx notes the peers that a request tried in one
/// word of 64 bits, and allocates for more.
const SLOTS: usize = 64;

/// Smallest chunk, as a power of two: `shpool->min_shift` as `ngx_init_zone_pool` sets it.
const MIN_SHIFT: u32 = 3;

/// Fewest pages of a zone: nginx refuses smaller ones.
const PAGES_MIN: usize = 8;

/// Powers of two up to half of the largest page that systems have, and more.
const SHIFTS: usize = 32;

/// Chunks and pages that are taken from a zone.
#[derive(Clone, Copy, Debug)]
pub struct Taken {
    /// Size of a page, in bytes.
    page: usize,
    /// Chunks of each power of two.
    chunks: [usize; SHIFTS],
    /// Whole pages.
    whole: usize,
}

impl Taken {
    /// Nothing, of pages of this size in bytes.
    pub fn nothing(page: usize) -> Self {
        Self { page, chunks: [0; SHIFTS], whole: 0 }
    }

    /// Takes so many chunks of `size` bytes.
    pub fn take(&mut self, size: usize, count: usize) {
        if size > self.page / 2 {
            self.whole = self.whole.saturating_add(size.div_ceil(self.page).saturating_mul(count));
        } else if let Some(chunks) = self.chunks.get_mut(shift(size) as usize) {
            *chunks = chunks.saturating_add(count);
        }
    }

    /// The pages that are taken with that.
    pub fn pages(&self) -> usize {
        let chunks = self.chunks.iter().zip(0..).filter(|(count, _)| **count > 0);
        chunks
            .map(|(count, shift)| count.div_ceil(per_page(self.page, shift)))
            .fold(self.whole, usize::saturating_add)
    }
}

/// The power of two of the chunks that `size` bytes come from.
fn shift(size: usize) -> u32 {
    size.next_power_of_two().trailing_zeros().max(MIN_SHIFT)
}

/// Whether a text of `len` bytes came in a chunk that has room for [`TEXT_SIZE`] bytes.
pub fn is_roomy(len: usize) -> bool {
    shift(len) >= shift(TEXT_SIZE)
}

/// Chunks of a power of two that a page holds: pages of small ones begin with a bitmap, others have theirs elsewhere.
fn per_page(page: usize, shift: u32) -> usize {
    let chunks = page >> shift;
    let exact = page / usize::BITS as usize;
    let bitmap = if (1 << shift) < exact { (chunks / (8 << shift)).max(1) } else { 0 };
    chunks.saturating_sub(bitmap).max(1)
}

/// Pages that a zone of `size` bytes has, all of them free: `ngx_slab_init`.
pub fn pages_of(size: usize, page: usize) -> usize {
    let shifts = (page.trailing_zeros().saturating_sub(MIN_SHIFT)) as usize;
    let lists = shifts * (size_of::<ngx_slab_page_t>() + size_of::<ngx_slab_stat_t>());
    let header = size_of::<ngx_slab_pool_t>() + lists;
    let pages = size.saturating_sub(header) / (page + size_of::<ngx_slab_page_t>());
    let start = (header + pages * size_of::<ngx_slab_page_t>()).next_multiple_of(page);
    pages.min(size.saturating_sub(start) / page)
}

/// Bytes of the smallest zone with so many pages that nginx takes.
pub fn size_for(pages: usize, page: usize) -> usize {
    let mut all = pages.max(PAGES_MIN);
    while pages_of(all.saturating_mul(page), page) < pages {
        all += 1;
    }
    all.saturating_mul(page)
}

/// What an upstream is to get.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wish {
    /// No slots: it is static.
    Static,
    /// What there is memory for.
    Default,
    /// Slots for so many servers.
    Servers(usize),
}

/// An upstream of a zone, as the configuration has it.
#[derive(Clone, Debug)]
pub struct Member {
    /// Length of its name.
    pub name: usize,
    /// Lengths of the texts of its primaries.
    pub primaries: Vec<usize>,
    /// Lengths of the texts of its backups.
    pub backups: Vec<usize>,
    /// Whether its balancer knows backups.
    pub has_backups: bool,
    /// What it is to get.
    pub wish: Wish,
}

/// What an upstream gets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Slots {
    /// Slots of primaries, the configured servers among them.
    pub primaries: usize,
    /// Slots of backups likewise; 0 if there is to be no list.
    pub backups: usize,
    /// Servers that the list of primaries may have. A slot more is for the change of an address.
    pub servers: usize,
    /// What the operator should know.
    pub remark: Option<Remark>,
}

/// What an operator should know of the slots of an upstream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Remark {
    /// There are more servers than were asked for.
    Raised,
    /// The zone is too small for twice the servers.
    Small,
}

/// The zone is too small for what `upstream_capacity` asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TooSmall {
    /// The first member that does not fit.
    pub member: usize,
    /// Bytes of a zone in which all do.
    pub needed: usize,
}

/// Shares a zone out among its upstreams: one for each, in their order.
///
/// `zone` is the length of the zone's name, `size` its size in bytes, `page` that of a page. What `upstream_capacity`
/// asks for is given whole, and leaves a page free. Half of the pages that are left then go to the others, the same
/// number of slots to each that can use it; the other half stays for TLS sessions.
///
/// # Errors
///
/// Not all that was asked for fits.
pub fn share(zone: usize, size: usize, page: usize, members: &[Member]) -> Result<Vec<Slots>, TooSmall> {
    let mut taken = Taken::nothing(page);
    taken.take(LOG_CONTEXT + zone, 1);
    for member in members {
        member.take_configured(&mut taken);
    }
    let all = pages_of(size, page);
    let mut slots: Vec<Slots> = members.iter().map(Member::asked).collect();

    let mut first = None;
    for (at, (member, slots)) in members.iter().zip(&slots).enumerate() {
        if matches!(member.wish, Wish::Servers(_)) {
            member.take_blanks(slots, &mut taken);
            if first.is_none() && taken.pages() >= all {
                first = Some(at);
            }
        }
    }
    if let Some(member) = first {
        return Err(TooSmall { member, needed: size_for(taken.pages().saturating_add(1), page) });
    }

    let others = || members.iter().filter(|member| member.wish == Wish::Default);
    let most = others().map(Member::most_blanks).max().unwrap_or(0);
    let used = taken.pages();
    let fits = |blanks: usize| {
        let mut taken = taken;
        for member in others() {
            member.take_blanks(&member.with_blanks(blanks), &mut taken);
        }
        // What is counted here is the worst case. A zone that is too small by it may do without the module, and must
        // do with it.
        used <= all && taken.pages() <= used + (all - used) / 2
    };
    let blanks = largest(most, fits);
    for (slots, member) in slots.iter_mut().zip(members) {
        if member.wish == Wish::Default {
            *slots = member.with_blanks(blanks);
        }
    }
    Ok(slots)
}

/// Smallest size that is advised, in bytes: what nginx's documents show.
const ADVISED_MIN: usize = 64 * 1024;

/// Size of a zone of its own in which the upstream can have twice its servers, in bytes: a power of two.
pub fn advised(page: usize, member: &Member) -> usize {
    let members = std::slice::from_ref(member);
    let is_enough = |slots: &Slots| slots.primaries >= 2 * member.primaries.len();
    let has_room = |size| share(member.name, size, page, members).is_ok_and(|all| all.iter().all(is_enough));
    let mut size = ADVISED_MIN.max(size_for(1, page)).next_power_of_two();
    while !has_room(size) && size < usize::MAX / 2 {
        size *= 2;
    }
    size
}

/// The largest number up to `most` that fits; 0 if none does. If one fits, each smaller one does.
fn largest(most: usize, fits: impl Fn(usize) -> bool) -> usize {
    let (mut good, mut bad) = (0, most.saturating_add(1));
    while bad - good > 1 {
        let middle = good + (bad - good) / 2;
        if fits(middle) {
            good = middle;
        } else {
            bad = middle;
        }
    }
    good
}

/// Bytes of what nginx adds to its messages about a zone, without the zone's name.
const LOG_CONTEXT: usize = c" in upstream zone \"\"".to_bytes_with_nul().len();

impl Member {
    /// Takes what nginx and the module allocate for what is configured.
    fn take_configured(&self, taken: &mut Taken) {
        taken.take(size_of::<RawPeers>(), 1);
        taken.take(size_of::<ngx_str_t>(), 1);
        taken.take(self.name, 1);
        if !self.backups.is_empty() {
            taken.take(size_of::<RawPeers>(), 1);
        }
        for text in self.primaries.iter().chain(&self.backups) {
            take_peer(taken, *text, 1);
        }
        if self.wish != Wish::Static {
            taken.take(size_of::<Extra>(), 1);
            // The chunk of a text is exchanged: for a moment there are two.
            let exchanged = self.primaries.iter().chain(&self.backups).filter(|text| !is_roomy(**text));
            taken.take(TEXT_SIZE, exchanged.count());
        }
    }

    /// Takes what the slots need that no server is configured for.
    fn take_blanks(&self, slots: &Slots, taken: &mut Taken) {
        take_peer(taken, TEXT_SIZE, slots.primaries.saturating_sub(self.primaries.len()));
        take_peer(taken, TEXT_SIZE, slots.backups.saturating_sub(self.backups.len()));
    }

    /// The slots that `upstream_capacity` asks for; those of the configured servers if there is none.
    fn asked(&self) -> Slots {
        let configured = self.primaries.len();
        let Wish::Servers(asked) = self.wish else {
            return self.with_blanks(0);
        };
        let servers = asked.max(configured);
        let backups = if self.has_backups { (servers / 4).max(1) + 1 } else { 0 };
        Slots {
            primaries: servers + 1,
            backups: self.backups.len() + backups,
            servers,
            remark: (asked < configured).then_some(Remark::Raised),
        }
    }

    /// Blank slots of primaries that the upstream gets by itself if there is memory.
    fn most_blanks(&self) -> usize {
        let configured = self.primaries.len();
        SLOTS.max(2 * configured) - configured
    }

    /// The slots with so many blanks of primaries, or as many as the upstream gets at most.
    fn with_blanks(&self, blanks: usize) -> Slots {
        let (configured, most) = (self.primaries.len(), self.most_blanks());
        let blanks = blanks.min(most);
        let backups = if self.has_backups && blanks > 0 { (blanks / 4).max(1) + 1 } else { 0 };
        let servers = configured.max((configured + blanks).saturating_sub(1));
        let is_small = self.wish == Wish::Default && blanks < most && servers < 2 * configured;
        Slots {
            primaries: configured + blanks,
            backups: self.backups.len() + backups,
            servers,
            remark: is_small.then_some(Remark::Small),
        }
    }
}

/// Takes what nginx allocates for so many peers with texts of `text` bytes, in `ngx_http_upstream_zone_copy_peer`, and
/// the module for as many blank slots.
fn take_peer(taken: &mut Taken, text: usize, count: usize) {
    taken.take(size_of::<RawPeer>(), count);
    taken.take(size_of::<ngx_sockaddr_t>(), count);
    taken.take(crate::zone::prepared::name_size(), count);
    taken.take(text, count);
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The page of most systems, in bytes.
    const PAGE: usize = 4096;

    /// An upstream with texts as addresses have them.
    fn member(primaries: usize, wish: Wish) -> Member {
        let backups = Vec::new();
        Member { name: 1, primaries: vec![14; primaries], backups, has_backups: true, wish }
    }

    /// Shares a zone of so many kilobytes.
    fn share_k(size: usize, members: &[Member]) -> Result<Vec<Slots>, TooSmall> {
        share(1, size * 1024, PAGE, members)
    }

    /// Pages that are taken when the members have these slots.
    fn pages(members: &[Member], slots: &[Slots]) -> usize {
        let mut taken = Taken::nothing(PAGE);
        taken.take(LOG_CONTEXT + 1, 1);
        for (member, slots) in members.iter().zip(slots) {
            member.take_configured(&mut taken);
            member.take_blanks(slots, &mut taken);
        }
        taken.pages()
    }

    #[test]
    fn a_page_of_small_chunks_has_a_bitmap() {
        let table = [(8, 504), (16, 254), (32, 127), (64, 64), (128, 32), (256, 16), (2048, 2)];
        for (size, wanted) in table {
            assert_eq!(per_page(PAGE, shift(size)), wanted, "{size}");
            let mut taken = Taken::nothing(PAGE);
            taken.take(size, wanted);
            assert_eq!(taken.pages(), 1, "{size}");
            taken.take(size - 1, 1);
            assert_eq!(taken.pages(), 2, "{size}");
        }
        for (size, wanted) in [(0, 1), (1, 1), (2049, 1), (4096, 1), (4097, 2), (9000, 3)] {
            let mut taken = Taken::nothing(PAGE);
            taken.take(size, 1);
            assert_eq!(taken.pages(), wanted, "{size}");
        }
        let rooms = [(0, false), (64, false), (65, true), (128, true), (129, true)];
        assert!(rooms.iter().all(|(len, roomy)| is_roomy(*len) == *roomy));
    }

    #[test]
    fn the_size_for_some_pages_is_the_smallest() {
        for page in [4096, 16_384, 65_536] {
            for wanted in (1..600).chain([10_000, 40_000]) {
                let size = size_for(wanted, page);
                assert!(pages_of(size, page) >= wanted, "{wanted} of {page}");
                assert!(
                    size == PAGES_MIN * page || pages_of(size - page, page) < wanted,
                    "{wanted} of {page}: less"
                );
            }
            assert_eq!(size_for(1, page), PAGES_MIN * page);
        }
        assert_eq!(pages_of(0, PAGE), 0);
    }

    #[test]
    fn a_large_zone_gives_64_slots_or_twice_the_servers() {
        for (servers, wanted) in [(1, 64), (31, 64), (32, 64), (33, 66), (100, 200)] {
            let slots = share_k(1024, &[member(servers, Wish::Default)]).unwrap()[0];
            let backups = ((wanted - servers) / 4).max(1) + 1;
            assert_eq!(
                slots,
                Slots { primaries: wanted, backups, servers: wanted - 1, remark: None },
                "{servers}"
            );
        }
    }

    #[test]
    fn the_advised_size_has_room_for_twice_the_servers() {
        for servers in [1, 2, 10, 16, 17, 50, 300, 5_000] {
            let members = [member(servers, Wish::Default)];
            let size = advised(PAGE, &members[0]);
            let has_room = |size| share(1, size, PAGE, &members).unwrap()[0].primaries >= 2 * servers;
            assert!(size.is_power_of_two() && has_room(size), "{servers}");
            assert!(size == ADVISED_MIN || !has_room(size / 2), "{servers}: less");
        }
    }

    #[test]
    fn a_small_zone_gives_half_of_its_pages() {
        for size in (32..400).step_by(4) {
            for servers in [1, 5, 20, 40] {
                let members = [member(servers, Wish::Default)];
                let none = [members[0].with_blanks(0)];
                let slots = share_k(size, &members).unwrap();
                let (all, used) = (pages_of(size * 1024, PAGE), pages(&members, &none));
                if used > all {
                    assert_eq!(slots, none, "{size}k {servers}");
                    continue;
                }
                let most = used + (all - used) / 2;
                assert!(pages(&members, &slots) <= most, "{size}k {servers}");
                let blanks = slots[0].primaries - servers;
                let more = [members[0].with_blanks(blanks + 1)];
                assert!(
                    blanks == members[0].most_blanks() || pages(&members, &more) > most,
                    "{size}k {servers}"
                );
                let small = blanks < members[0].most_blanks() && slots[0].servers < 2 * servers;
                assert_eq!(slots[0].remark, small.then_some(Remark::Small), "{size}k {servers}");
            }
        }
        let backups = share_k(64, &[member(5, Wish::Default)]).unwrap()[0];
        assert!(backups.servers >= 10, "{backups:?}");
        let without = Member { has_backups: false, ..member(5, Wish::Default) };
        let without = share_k(64, &[without]).unwrap()[0];
        assert!(without.servers > backups.servers && without.backups == 0, "{without:?}");
    }

    #[test]
    fn the_upstreams_of_a_zone_share_what_is_left() {
        let members = [member(3, Wish::Default), member(9, Wish::Static), member(20, Wish::Default)];
        let slots = share_k(128, &members).unwrap();
        let blanks = |at: usize| slots[at].primaries - members[at].primaries.len();
        assert_eq!((blanks(0), blanks(1)), (blanks(2), 0), "{slots:?}");
        assert!((1..44).contains(&blanks(0)), "{slots:?}");
        assert_eq!((slots[1].backups, slots[1].remark), (0, None));

        // What one cannot use is another's.
        let members = [member(63, Wish::Default), member(1, Wish::Default)];
        let slots = share_k(1024, &members).unwrap();
        assert_eq!((slots[0].primaries, slots[1].primaries), (126, 64));

        // Others get what the one that asked for more left.
        let alone = share_k(320, &[member(5, Wish::Default)]).unwrap()[0];
        let beside = share_k(320, &[member(5, Wish::Servers(250)), member(5, Wish::Default)]).unwrap();
        assert_eq!(beside[0].primaries, 251);
        assert!(alone.primaries == 64 && beside[1].primaries < 32, "{beside:?}");
    }

    #[test]
    fn a_capacity_is_for_servers_and_backups_get_a_quarter() {
        let table = [(1, 2, 2), (3, 4, 2), (4, 5, 2), (8, 9, 3), (100, 101, 26)];
        for (asked, primaries, backups) in table {
            let slots = share_k(1024, &[member(1, Wish::Servers(asked))]).unwrap()[0];
            assert_eq!(slots, Slots { primaries, backups, servers: asked, remark: None }, "{asked}");
        }
        let with = Member { backups: vec![14; 3], ..member(1, Wish::Servers(100)) };
        assert_eq!(share_k(1024, &[with]).unwrap()[0].backups, 3 + 26);
        let raised = share_k(1024, &[member(5, Wish::Servers(3))]).unwrap()[0];
        assert_eq!((raised.primaries, raised.servers, raised.remark), (6, 5, Some(Remark::Raised)));
    }

    #[test]
    fn what_does_not_fit_is_told_the_size_that_would() {
        for asked in [10, 63, 64, 100, 500, 1000, 20_000] {
            for servers in [1, 5, 70] {
                let members = [member(servers, Wish::Default), member(servers, Wish::Servers(asked))];
                let error = share_k(32, &members).unwrap_err();
                assert_eq!((error.member, error.needed % PAGE), (1, 0), "{asked}");
                let fits = |size| share(1, size, PAGE, &members);
                assert_eq!(fits(error.needed - PAGE), Err(error), "{asked}");
                let slots = fits(error.needed).unwrap();
                assert!(pages(&members, &slots) < pages_of(error.needed, PAGE), "{asked}");
            }
        }
        // The first that does not fit is named, with the size for all.
        let members = [1, 60, 300].map(|asked| member(1, Wish::Servers(asked)));
        let error = share_k(64, &members).unwrap_err();
        assert_eq!(error.member, 1);
        assert!(share(1, error.needed, PAGE, &members).is_ok());
    }

    #[test]
    fn what_is_too_small_without_blanks_is_left_alone() {
        let slots = share_k(32, &[member(200, Wish::Default)]).unwrap()[0];
        let wanted = Slots { primaries: 200, backups: 0, servers: 200, remark: Some(Remark::Small) };
        assert_eq!(slots, wanted);
    }
}
