//! What is written into the memory of a caller.

use super::failure::{MORE, OK};
use super::reply::Reply;
use super::rows::{PeerRow, UpstreamRow};
use super::*;
use crate::forms::fake::{self, fake, peer, upstream};
use crate::model::state::{Admin, Reason};
use crate::model::time::UnixTime;
use crate::nginx::caller::NotProxied;

/// What an answer left in so many bytes of memory: the code, the bytes, and the number of rows.
fn written(
    size: usize,
    work: impl FnOnce(&mut Space<'_>) -> Result<(), Failure>,
) -> (c_int, u32, Vec<u8>, u32) {
    // One byte more, to see that nobody writes there.
    let mut memory = vec![b'#'; size + 1];
    let mut reply = Reply { data: memory.as_mut_ptr(), size: size as u32, len: 0, count: 99 };
    // SAFETY: the memory has these bytes.
    let mut space = unsafe { Space::new(&mut reply) };
    let code = match work(&mut space) {
        Ok(()) => space.close(),
        Err(failure) => space.refuse(&failure),
    };
    assert_eq!(memory.pop(), Some(b'#'));
    (code, reply.len, memory, reply.count)
}

/// A number of 8 bytes at a place.
fn double(memory: &[u8], at: usize) -> f64 {
    f64::from_ne_bytes(memory[at..at + 8].try_into().unwrap())
}

/// A number of 4 bytes at a place.
fn word(memory: &[u8], at: usize) -> u32 {
    u32::from_ne_bytes(memory[at..at + 4].try_into().unwrap())
}

/// The text whose place and length stand at a place.
fn text(memory: &[u8], at: usize) -> &str {
    let (from, len) = (word(memory, at) as usize, word(memory, at + 4) as usize);
    str::from_utf8(&memory[from..from + len]).unwrap()
}

#[test]
fn an_upstream_and_its_servers() {
    let mut second = peer(1, "app.example.com");
    second.name = "127.0.0.1:8082".into();
    second.terms.admin = Admin::Down;
    second.down = 1;
    second.terms.params.weight = 7;
    second.active = 3;
    second.last_failure = Some(UnixTime(5));
    let (user, note) = (Some("alice".to_owned()), Some("upgrade".to_owned()));
    second.reason = Some(Reason::Operator { at: UnixTime(9), client: "::1".into(), user, note });
    let upstreams = fake::Fake::new(vec![upstream("backend", vec![peer(0, "127.0.0.1:8081"), second])]);

    let (code, len, memory, count) =
        written(4096, |space| rows::peers(&upstreams, b"backend_zone", fake::NOW, space));
    assert_eq!((code, count), (OK, 2));
    assert_eq!(double(&memory, 0), 3.0);
    assert_eq!([8, 16, 24, 32].map(|at| text(&memory, at)), ["backend", "backend_zone", "round_robin", ""]);

    let (head, each) = (size_of::<UpstreamRow>(), size_of::<PeerRow>());
    let numbers = |row: usize| {
        let from = head + row * each;
        [0, 8, 16, 24, 32, 40, 48, 56, 64].map(|at| double(&memory, from + at))
    };
    assert_eq!(numbers(0), [0.0, 1.0, 0.0, 1.0, 10.0, 0.0, 0.0, -1.0, -1.0]);
    assert_eq!(numbers(1), [1.0, 7.0, 0.0, 1.0, 10.0, 3.0, 0.0, 5.0, 9.0]);
    let texts = |row: usize| {
        let from = head + row * each + 72;
        [0, 8, 16, 24, 32].map(|at| text(&memory, from + at))
    };
    assert_eq!(texts(0), ["127.0.0.1:8081", "127.0.0.1:8081", "", "", ""]);
    assert_eq!(texts(1), ["app.example.com", "127.0.0.1:8082", "::1", "alice", "upgrade"]);
    let words = |row: usize| {
        let from = head + row * each + 112;
        [0, 4, 8, 12].map(|at| word(&memory, from + at))
    };
    assert_eq!((words(0), words(1)), ([0, 0, 0, 0], [1, 2, 0, 1]));

    // As many bytes as it said are enough, and one less is not.
    let len = len as usize;
    for (size, wanted) in [(len, OK), (len - 1, MORE), (head, MORE), (1, MORE), (0, MORE)] {
        let (code, needed, _, count) =
            written(size, |space| rows::peers(&upstreams, b"backend", fake::NOW, space));
        assert_eq!((code, needed as usize, count), (wanted, len, 2), "{size}");
    }
}

#[test]
fn all_upstreams() {
    let (code, _, memory, count) = written(4096, |space| rows::upstreams(&fake(), space));
    assert_eq!((code, count), (OK, 2));
    let row = size_of::<UpstreamRow>();
    assert_eq!([8, row + 8].map(|at| text(&memory, at)), ["backend", "fixed"]);
    assert_eq!(text(&memory, row + 16), "");
    assert_eq!(text(&memory, 32), "");
    assert!(text(&memory, row + 32).starts_with("upstream has no \"zone\""));
}

#[test]
fn a_refusal_is_cut_where_the_memory_ends() {
    let refuse = |size| {
        let answer = written(size, |space| {
            // What was written before is gone.
            space.text("rubbish that is longer than any refusal could ever be in such a test as this");
            space.set_count(5);
            rows::peers(&fake(), b"nobody", fake::NOW, space)
        });
        let (code, len, memory, count) = answer;
        assert_eq!((code, count), (REFUSED, 0));
        String::from_utf8(memory[..len as usize].to_vec()).unwrap()
    };
    assert_eq!(refuse(100), "UpstreamNotFound upstream is not found: \"nobody\"");
    assert_eq!(refuse(11), "UpstreamNot");
    assert_eq!(refuse(0), "");
}

#[test]
fn no_memory_at_all() {
    let mut reply = Reply { data: std::ptr::null_mut(), size: 10, len: 9, count: 9 };
    // SAFETY: nothing is written to where nothing is.
    unsafe { Space::new(&mut reply) };
    assert_eq!((reply.len, reply.count), (0, 0), "nothing of an earlier call is left");
    // SAFETY: as above.
    let mut space = unsafe { Space::new(&mut reply) };
    space.text("text");
    assert_eq!((space.close(), reply.len), (OK, 4));
}

#[test]
fn why_a_request_has_no_upstream() {
    let table = [
        (NotProxied::Idle, "no request object"),
        (NotProxied::Local, "no proxying"),
        (NotProxied::Nameless, "no upstream"),
    ];
    for (error, text) in table {
        assert_eq!(Failure::from(error).text, text);
    }
}
