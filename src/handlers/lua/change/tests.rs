//! What the words and numbers of a script ask for, and what becomes of it.

use super::*;
use crate::forms::fake::{Fake, fake, peer, upstream};
use crate::model::params::Params;
use crate::ops::Guard;

/// Words for one server of `backend`.
fn words(ask: Ask, server: &[u8]) -> Words<'_> {
    Words { ask, upstream: b"backend", servers: vec![(server, false)], address: b"", note: b"" }
}

/// The words for people, of a change that is refused.
fn refusal(words: &Words<'_>) -> (&'static str, String) {
    let failure = make(&fake(), words, None, || true).err().unwrap();
    (failure.code, failure.text)
}

#[test]
fn each_number_has_its_meaning() {
    let one = vec![Selector::Server("127.0.0.1:8081".to_owned())];
    let all = Change { admin: None, params: PARAMS.iter().map(|row| row.param).zip([4, 3, 2, 1]).collect() };
    let state = |state| Ask { state, ..Ask::default() };
    let set = |admin| Action::Set(Change { admin, params: Vec::new() });
    let table = [
        (state(0), set(None)),
        (state(1), set(Some(Admin::Up))),
        (state(2), set(Some(Admin::Down))),
        (state(3), set(Some(Admin::Drain))),
        (Ask { params: [4.0, 3.0, 2.0, 1.0], given: 15, ..state(0) }, Action::Set(all)),
        (Ask { params: [9.0; 4], given: 0, ..state(0) }, set(None)),
        (
            Ask { params: [0.0, 0.0, 7.0, 0.0], given: 4, ..state(0) },
            Action::Set(Change { admin: None, params: vec![(Param::MaxFails, 7)] }),
        ),
        (Ask { action: 2, ..state(0) }, Action::Remove),
    ];
    for (ask, wanted) in table {
        let command = words(ask, b"127.0.0.1:8081").command(&fake(), "c".into()).unwrap();
        assert_eq!((&command.action, &command.servers), (&wanted, &one), "{ask:?}");
        assert_eq!((command.client.address.as_str(), command.note, command.force), ("c", None, false));
    }
}

#[test]
fn a_new_server() {
    let ask = Ask { action: 1, state: 2, given: 1, params: [5.0; 4], flags: BACKUP | FORCE };
    let command = words(ask, b"127.0.0.1").command(&fake(), "".into()).unwrap();
    let Action::Add(added) = command.action else { panic!("{:?}", command.action) };
    assert_eq!((added.text.as_str(), added.address.to_string().as_str()), ("127.0.0.1", "127.0.0.1:80"));
    assert_eq!((added.group, added.terms.admin, command.force), (Group::Backup, Admin::Down, true));
    assert_eq!(added.terms.params, Params { weight: 5, ..Params::default() });
    assert!(command.servers.is_empty());
}

#[test]
fn several_servers_and_a_note() {
    let mut words = words(Ask { state: 2, ..Ask::default() }, b"127.0.0.1:8081");
    words.servers.push((b"2", true));
    words.note = b"upgrade";
    let (done, lines) = make(&fake(), &words, None, || true).unwrap();
    assert_eq!((done.revision, done.changed, done.left, done.id), (4.0, 2.0, 4.0, -1.0));
    assert_eq!(
        lines,
        [
            r#"upstream "backend" server "127.0.0.1:8081": state up -> down, revision 4, note: "upgrade""#,
            r#"upstream "backend" server "app.example.com": state up -> down, revision 4, note: "upgrade""#,
        ]
    );
}

#[test]
fn who_asks() {
    for (client, wanted) in [(None, "lua"), (Some("10.0.0.1".to_owned()), "10.0.0.1")] {
        let upstreams = fake();
        let words = words(Ask { state: 2, ..Ask::default() }, b"127.0.0.1:8081");
        let (_, lines) = make(&upstreams, &words, client, || false).unwrap();
        assert!(lines.is_empty(), "the log takes no notices");
        let reason = upstreams.backend_peer(0).reason.unwrap().to_string();
        assert!(reason.starts_with(&format!("client {wanted} at ")), "{reason}");
    }
}

#[test]
fn the_name_of_the_zone_is_not_that_of_the_log() {
    let ask = Ask { state: 2, ..Ask::default() };
    let by_zone = Words { upstream: b"backend_zone", ..words(ask, b"127.0.0.1:8081") };
    let (_, lines) = make(&fake(), &by_zone, None, || true).unwrap();
    assert!(lines[0].starts_with(r#"upstream "backend" server"#), "{lines:?}");
}

#[test]
fn the_last_server_stays_if_that_is_asked_for() {
    let alone = || Fake::new(vec![upstream("backend", vec![peer(0, "127.0.0.1:8081")])]);
    let remove = |flags| words(Ask { action: 2, flags, ..Ask::default() }, b"127.0.0.1:8081");
    let refused = make(&alone(), &remove(KEEP_ONE), None, || true).err().unwrap();
    assert_eq!(refused.code, "Guarded");
    // Not even the guard's exception helps.
    assert!(make(&alone(), &remove(KEEP_ONE | FORCE), None, || true).is_err());
    assert_eq!(make(&alone(), &remove(0), None, || true).unwrap().0.left, 0.0);
    assert_eq!(make(&fake(), &remove(KEEP_ONE), None, || true).unwrap().0.left, 3.0);

    let mut guarded = alone();
    guarded.guard = Some(Guard::Servers(1));
    assert!(make(&guarded, &remove(0), None, || true).is_err());
    assert!(make(&guarded, &remove(FORCE), None, || true).is_ok());
}

#[test]
fn what_cannot_be_meant() {
    let ask = Ask::default();
    let server: &[u8] = b"127.0.0.1:8081";
    let weight = |value| Ask { given: 1, params: [value; 4], ..ask };
    let of = |upstream| Words { upstream, ..words(ask, server) };
    let no_server = Words { servers: Vec::new(), ..words(ask, server) };
    let two =
        Words { servers: vec![(server, false), (server, false)], ..words(Ask { action: 1, ..ask }, server) };
    let table = [
        (of(b"nobody"), "UpstreamNotFound", "upstream is not found: \"nobody\""),
        (of(b"backend\0"), "UpstreamNotFound", "upstream is not found: \"backend\\x00\""),
        (of(b"\xff"), "UpstreamNotFound", "upstream is not found: \"\u{fffd}\""),
        (of(b"fixed"), "UpstreamStatic", "only for upstream with 'zone'"),
        (words(ask, b"\xff"), "ServerNotFound", "server or peer is not found: \"\u{fffd}\""),
        (words(ask, b""), "ServerNotFound", "server or peer is not found"),
        (no_server, "BadArgument", "no server is named"),
        (two, "BadArgument", "no server is named"),
        (words(Ask { action: 4, ..ask }, server), "BadArgument", "unknown action"),
        (words(Ask { state: 4, ..ask }, server), "BadArgument", "unknown state"),
        (Words { note: b"\xff", ..words(ask, server) }, "BadArgument", "note: not UTF-8"),
        (words(weight(f64::NAN), server), "BadParameter", "weight: not a number"),
        (words(weight(f64::INFINITY), server), "BadParameter", "weight: not a number: \"inf\""),
        (words(weight(1.5), server), "BadParameter", "weight: not a number: \"1.5\""),
        (words(weight(-1.0), server), "BadParameter", "invalid weight \"-1\": must be between 1 and 65535"),
        (
            words(weight(0.0), server),
            "BadParameter",
            "invalid weight \"0\": use drain or down to stop new requests",
        ),
    ];
    for (words, code, text) in table {
        assert_eq!(refusal(&words), (code, text.to_owned()), "{words:?}");
    }
    let id = Words { servers: vec![(b"0x", true)], ..words(ask, server) };
    assert_eq!(refusal(&id).0, "ServerNotFound");
}

#[test]
fn texts_lie_one_behind_the_other() {
    let (upstream, servers, note) = (b"u", b"one2three", b"n\0n");
    let lengths = [3, 1 | IS_ID, 5, 0];
    let texts = Texts {
        upstream: upstream.as_ptr(),
        upstream_len: upstream.len(),
        servers: servers.as_ptr(),
        lengths: lengths.as_ptr(),
        count: lengths.len(),
        address: std::ptr::null(),
        address_len: 5,
        note: note.as_ptr(),
        note_len: note.len(),
    };
    // SAFETY: the texts are those above, but for one that is not there.
    let words = unsafe { texts.words(&Ask::default()) }.unwrap();
    assert_eq!(words.servers, [(&b"one"[..], false), (b"2", true), (b"three", false), (b"", false)]);
    assert_eq!((words.upstream, words.address, words.note), (&b"u"[..], &b""[..], &b"n\0n"[..]));

    for (servers, lengths) in [(std::ptr::null(), lengths.as_ptr()), (servers.as_ptr(), std::ptr::null())] {
        let texts = Texts { servers, lengths, ..texts };
        // SAFETY: as above.
        assert!(unsafe { texts.words(&Ask::default()) }.is_none());
    }
}
