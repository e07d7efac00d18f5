//! Arguments: what is taken survives being encoded again and being split between query string and body.

#![cfg_attr(feature = "libfuzzer", no_main)]

use nginx_upstream_control_fuzz::fuzz_target;
use upstream_control_core::model::query::{MAX_ARGUMENTS, MAX_RAW_LENGTH, Query};

mod message;

/// Appends every byte of `text` as `%HH`.
fn encode(text: &str, raw: &mut String) {
    for byte in text.bytes() {
        raw.push_str(&format!("%{byte:02X}"));
    }
}

fuzz_target!(|raw: &[u8]| {
    let query = match Query::parse(raw) {
        Ok(query) => query,
        Err(error) => return message::check_message(&error),
    };
    assert!(query.iter().count() <= MAX_ARGUMENTS);
    let mut encoded = String::new();
    for (name, value) in query.iter() {
        assert!(!name.bytes().chain(value.bytes()).any(|byte| byte.is_ascii_control()));
        assert_eq!(query.get(name), Some(value));
        encode(name, &mut encoded);
        encoded.push('=');
        encode(value, &mut encoded);
        encoded.push('&');
    }
    if encoded.len() <= MAX_RAW_LENGTH {
        let again = Query::parse(encoded.as_bytes()).expect("an encoded query was refused");
        assert!(again.iter().eq(query.iter()));
    }
    // Each `&` may be the border between query string and body.
    let borders = raw.iter().enumerate().filter(|(_, byte)| **byte == b'&');
    for (border, _) in borders.take(8) {
        let mut split = Query::parse(&raw[..border]).expect("the head of a query was refused");
        assert_eq!(split.extend(&raw[border + 1..]), Ok(()));
        assert!(split.iter().eq(query.iter()));
    }
    // Any name given once more is refused, and changes nothing.
    if let Some((name, _)) = query.iter().next() {
        let mut body = String::new();
        encode(name, &mut body);
        body.push('=');
        let mut twice = query.clone();
        assert!(twice.extend(body.as_bytes()).is_err());
        assert!(twice.iter().eq(query.iter()));
    }
});
