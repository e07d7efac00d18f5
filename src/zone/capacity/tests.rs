//! Blanks and the model of the slab, against nginx's real ones.

use std::ptr::NonNull;

use nginx_sys::{
    ngx_conf_t, ngx_create_pool, ngx_http_upstream_rr_peer_t, ngx_http_upstream_rr_peers_t,
    ngx_http_upstream_srv_conf_t, ngx_log_t, ngx_slab_alloc,
};

use crate::nginx::fixture;
use crate::zone::peers::bytes;
use crate::zone::tests::upstream;
use crate::zone::{Zone, layout};

use super::blanks::{append, texts};
use super::room::{TEXT_SIZE, Taken, pages_of};
use super::texts::ready;

/// Size of a page in these tests, in bytes.
const PAGE: usize = 4096;

/// A configuration that is being read.
fn conf() -> NonNull<ngx_conf_t> {
    // SAFETY: plain words, for which zeroes are a start.
    unsafe {
        let log = Box::leak(Box::new(std::mem::zeroed::<ngx_log_t>()));
        let conf = Box::leak(Box::new(std::mem::zeroed::<ngx_conf_t>()));
        conf.pool = ngx_create_pool(PAGE, log);
        NonNull::from(conf)
    }
}

/// The primaries of an upstream, and its backups.
fn lists(us: NonNull<ngx_http_upstream_srv_conf_t>) -> Vec<&'static mut ngx_http_upstream_rr_peers_t> {
    // SAFETY: the fixture made the lists, and they are never freed; each is borrowed once at a time.
    unsafe {
        let primary: *mut ngx_http_upstream_rr_peers_t = (*us.as_ptr()).peer.data.cast();
        [primary, (*primary).next].into_iter().filter_map(|list| list.as_mut()).collect()
    }
}

/// The peers of a list.
fn peers(list: &ngx_http_upstream_rr_peers_t) -> Vec<&'static mut ngx_http_upstream_rr_peer_t> {
    let mut peers = Vec::new();
    let mut next = list.peer;
    // SAFETY: the fixture linked them, or `append` did; each is borrowed once at a time.
    while let Some(peer) = unsafe { next.as_mut() } {
        next = peer.next;
        peers.push(peer);
    }
    peers
}

/// The text of a server.
fn text(peer: &ngx_http_upstream_rr_peer_t) -> Vec<u8> {
    // SAFETY: the text lives as long as the peer.
    unsafe { bytes(&peer.server) }.to_vec()
}

/// The zone of an upstream.
fn zone(us: NonNull<ngx_http_upstream_srv_conf_t>) -> Zone {
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
fn blanks_are_appended_and_counted() {
    let cases: [(&[_], &[_], _, _); 4] = [
        (&[("a", 1, 1)], &[], (5, 0), (5, 0)),
        (&[("a", 1, 1), ("b", 2, 7)], &[], (5, 3), (5, 3)),
        (&[("a", 1, 1)], &[("c", 3, 3), ("d", 4, 1)], (2, 4), (2, 4)),
        (&[("a", 1, 1), ("b", 2, 7)], &[("c", 3, 3)], (1, 0), (2, 1)),
    ];
    for (primaries, backups, asked, wanted) in cases {
        let (us, _) = upstream(primaries, backups);
        let single = lists(us)[0].single();
        let before: Vec<_> = lists(us).iter().map(|list| (list.tries, list.total_weight)).collect();
        // SAFETY: the fixture's lists, and a configuration that is being read.
        let lengths = unsafe {
            append(conf(), us, asked.0, asked.1).unwrap();
            texts(us).unwrap()
        };
        assert_eq!((lengths.0.len(), lengths.1.len()), wanted);
        let found = lists(us);
        assert_eq!(found[0].single(), single);
        for (at, list) in found.iter().enumerate() {
            assert_eq!((list.tries, list.total_weight), before.get(at).copied().unwrap_or((0, 0)));
            let configured = if at == 0 { primaries } else { backups };
            let (servers, blanks) = peers(list).into_iter().partition::<Vec<_>, _>(|peer| peer.weight > 0);
            assert_eq!(servers.len(), configured.len());
            assert!(servers.iter().zip(configured).all(|(peer, server)| text(peer) == server.0.as_bytes()));
            assert!(blanks.is_empty() || (list.weighted() != 0) == (list.total_weight != list.number));
            for blank in blanks {
                assert_eq!((blank.down, blank.weight, blank.effective_weight), (1, 0, 0));
                assert_eq!((blank.name.len, blank.name.data.is_null()), (0, false));
                assert_eq!(text(blank), [0; TEXT_SIZE]);
            }
        }
        assert_eq!(layout::check(&zone(us)), Ok(()));
    }
}

#[test]
fn each_text_gets_a_chunk_of_its_own_that_any_other_fits_in() {
    let (long, longer) = ("x".repeat(100), "y".repeat(200));
    let servers = [("short", 1, 1), (long.as_str(), 2, 1), (longer.as_str(), 3, 1), ("s", 4, 1)];
    let (us, real) = upstream(&servers, &[("backup", 5, 1)]);
    // SAFETY: the fixture's lists, and a configuration that is being read.
    unsafe { append(conf(), us, 7, 4) }.unwrap();
    let texts = |us| lists(us).iter().flat_map(|list| peers(list)).map(|peer| text(peer)).collect::<Vec<_>>();
    let places = |us: NonNull<_>| -> Vec<_> {
        lists(us).iter().flat_map(|list| peers(list)).map(|peer| peer.server.data).collect()
    };
    let (before, was, then) = (fixture::used(real), texts(us), places(us));
    // SAFETY: nobody else knows the zone.
    assert!(unsafe { ready(&zone(us)) });
    let (after, is, now) = (fixture::used(real), texts(us), places(us));

    for (was, is) in was.iter().zip(&is) {
        if was == &[0; TEXT_SIZE] { assert!(is.is_empty()) } else { assert_eq!(was, is) }
    }
    let moved: Vec<_> = then.iter().zip(&now).map(|(then, now)| then != now).collect();
    assert_eq!(moved, [true, false, false, true, false, false, false, true, false, false, false]);
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
    // SAFETY: the fixture's lists, and a configuration that is being read.
    unsafe { append(conf(), us, 4, 0) }.unwrap();
    fixture::exhaust(real);
    let before = fixture::used(real);
    // SAFETY: nobody else knows the zone.
    assert!(!unsafe { ready(&zone(us)) });
    assert_eq!(fixture::used(real), before);
    let texts: Vec<_> = peers(lists(us)[0]).into_iter().map(|peer| text(peer)).collect();
    assert_eq!(texts, [b"a".to_vec(), b"b".to_vec(), vec![], vec![]]);
}

#[test]
fn an_upstream_without_a_zone_is_not_ready() {
    let (us, _) = upstream(&[("a", 1, 1)], &[]);
    lists(us)[0].shpool = std::ptr::null_mut();
    // SAFETY: nobody else knows the list.
    assert!(!unsafe { ready(&zone(us)) });
}
