//! Blanks and the model of the slab, against nginx's real ones.

use std::ptr::NonNull;

use nginx_sys::ngx_slab_alloc;

use crate::nginx::fixture;
use crate::zone::Zone;
use crate::zone::nginx_peers::{RawPeer, RawPeers, UpstreamConf};
use crate::zone::peers::bytes;
use crate::zone::prepared::name_size;
use crate::zone::tests::upstream;

use super::blanks::make;
use super::room::{TEXT_SIZE, Taken, pages_of};
use super::texts::ready;

/// Size of a page in these tests, in bytes.
const PAGE: usize = 4096;

/// The primaries of an upstream, and its backups.
fn lists(us: NonNull<UpstreamConf>) -> Vec<&'static mut RawPeers> {
    // SAFETY: the fixture made the lists, and they are never freed; each is borrowed once at a time.
    unsafe {
        let primary: *mut RawPeers = (*us.as_ptr()).peer.data.cast();
        [primary, (*primary).next].into_iter().filter_map(|list| list.as_mut()).collect()
    }
}

/// The peers of a list.
fn peers(list: &RawPeers) -> Vec<&'static mut RawPeer> {
    linked(list.peer)
}

/// Peers that are linked, from one on.
fn linked(mut next: *mut RawPeer) -> Vec<&'static mut RawPeer> {
    let mut peers = Vec::new();
    // SAFETY: the fixture linked them, or `make` did; each is borrowed once at a time.
    while let Some(peer) = unsafe { next.as_mut() } {
        next = peer.next;
        peers.push(peer);
    }
    peers
}

/// The text of a server.
fn text(peer: &RawPeer) -> Vec<u8> {
    // SAFETY: the text lives as long as the peer.
    unsafe { bytes(peer.server) }.to_vec()
}

/// The zone of an upstream.
fn zone(us: NonNull<UpstreamConf>) -> Zone {
    // SAFETY: the fixture made lists of peers.
    unsafe { Zone::of(us) }.unwrap()
}

#[test]
fn the_model_counts_as_nginx_does() {
    let sizes = [1, 8, 9, 16, 17, 32, 33, 64, 65, 128, 129, 200, 256, 257, 512, 1000, 1024, 2048, 3000, 9000];
    for pages in [8, 9, 16, 17, 64, 100, 171, 172, 256] {
        // Each size alone, then all of them by turns.
        let turns = sizes.iter().map(std::slice::from_ref).chain([sizes.as_slice()]);
        for sizes in turns {
            let real = fixture::shm_zone(pages);
            let all = pages_of(pages * PAGE, PAGE);
            assert_eq!(fixture::free_pages(real), all, "{pages}");
            let mut taken = Taken::nothing(PAGE);
            for size in sizes.iter().cycle() {
                taken.take(*size, 1);
                // SAFETY: the fixture's pool; the chunk stays taken.
                let chunk = unsafe { ngx_slab_alloc(fixture::pool(real), *size) };
                assert_eq!(chunk.is_null(), taken.pages() > all, "{pages}: {size}");
                if chunk.is_null() {
                    break;
                }
                assert_eq!(fixture::free_pages(real), all - taken.pages(), "{pages}: {size}");
            }
        }
    }
}

#[test]
fn blanks_are_made_as_nginx_copies_peers() {
    let real = fixture::shm_zone(16);
    // SAFETY: the fixture's pool.
    let blanks = unsafe { make(NonNull::new(fixture::pool(real)).unwrap(), 7) };
    assert_eq!(blanks.count, 7);
    let blanks = linked(blanks.first);
    assert_eq!(blanks.len(), 7);
    for blank in blanks {
        assert_eq!((blank.down, blank.weight, blank.effective_weight, blank.conns), (1, 0, 0, 0));
        assert_eq!((blank.name.len, blank.name.data.is_null()), (0, false));
        assert_eq!((blank.server.len, blank.server.data.is_null()), (0, false));
        // SAFETY: made with its address.
        assert_eq!(i32::from(unsafe { (*blank.sockaddr).sa_family }), libc::AF_INET);
        // SAFETY: the buffers are a blank's own.
        unsafe {
            blank.name.data.write_bytes(b'x', name_size());
            blank.server.data.write_bytes(b'x', TEXT_SIZE);
        }
    }
}

#[test]
fn a_full_zone_gets_the_blanks_that_fit() {
    let real = fixture::shm_zone(16);
    // SAFETY: the fixture's pool.
    let pool = NonNull::new(fixture::pool(real)).unwrap();
    // SAFETY: likewise.
    let blanks = unsafe { make(pool, 1000) };
    assert!((30..80).contains(&blanks.count), "{}", blanks.count);
    assert_eq!(linked(blanks.first).len(), blanks.count);
    let before = fixture::used(real);
    // SAFETY: likewise.
    let none = unsafe { make(pool, 1) };
    assert!(none.count == 0 && none.first.is_null());
    assert_eq!(fixture::used(real), before, "nothing of it stays taken");
}

#[test]
fn each_text_gets_a_chunk_of_its_own_that_any_other_fits_in() {
    let (long, longer) = ("x".repeat(100), "y".repeat(200));
    let servers = [("short", 1, 1), (long.as_str(), 2, 1), (longer.as_str(), 3, 1), ("s", 4, 1)];
    let (us, real) = upstream(&servers, &[("backup", 5, 1)]);
    let texts = |us| lists(us).iter().flat_map(|list| peers(list)).map(|peer| text(peer)).collect::<Vec<_>>();
    let places = |us: NonNull<_>| -> Vec<_> {
        lists(us).iter().flat_map(|list| peers(list)).map(|peer| peer.server.data).collect()
    };
    let (before, was, then) = (fixture::used(real), texts(us), places(us));
    // SAFETY: nobody else knows the zone.
    assert!(unsafe { ready(&zone(us)) });
    let (after, is, now) = (fixture::used(real), texts(us), places(us));

    assert_eq!(was, is);
    let moved: Vec<_> = then.iter().zip(&now).map(|(then, now)| then != now).collect();
    assert_eq!(moved, [true, false, false, true, true]);
    // Chunks of 8 bytes are given back, and as many of 128 taken; no other number changes but that of the pages.
    let wanted = [(0, before[0] - 3), (4, before[4] + 3)];
    for (at, (before, after)) in before.iter().zip(&after).enumerate().take(before.len() - 1) {
        let wanted = wanted.iter().find(|(place, _)| *place == at).map_or(*before, |(_, count)| *count);
        assert_eq!(*after, wanted, "{at}");
    }
}

#[test]
fn a_full_zone_keeps_its_texts_and_says_so() {
    let (us, real) = upstream(&[("a", 1, 1), ("b", 2, 2)], &[]);
    fixture::exhaust(real);
    let before = fixture::used(real);
    // SAFETY: nobody else knows the zone.
    assert!(!unsafe { ready(&zone(us)) });
    assert_eq!(fixture::used(real), before);
    let texts: Vec<_> = peers(lists(us)[0]).into_iter().map(|peer| text(peer)).collect();
    assert_eq!(texts, [b"a".to_vec(), b"b".to_vec()]);
}

#[test]
fn an_upstream_without_a_zone_is_not_ready() {
    let (us, _) = upstream(&[("a", 1, 1)], &[]);
    lists(us)[0].shpool = std::ptr::null_mut();
    // SAFETY: nobody else knows the list.
    assert!(!unsafe { ready(&zone(us)) });
}
