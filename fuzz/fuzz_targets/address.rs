//! Addresses: what is taken has a canonical form that means the same; what is refused has a safe message.

#![cfg_attr(feature = "libfuzzer", no_main)]

use nginx_upstream_control_fuzz::fuzz_target;
use upstream_control_core::model::address::{Address, AddressError};

mod message;

fuzz_target!(|text: &str| {
    match Address::parse(text) {
        Ok(address) => {
            let shown = address.to_string();
            assert!(!shown.contains(|c: char| c.is_control() || c.is_whitespace()));
            assert_eq!(Address::parse(&shown).as_ref(), Ok(&address));
            // A canonical form names its port, so no default can change it.
            assert_eq!(Address::parse_with_default_port(&shown, 1).as_ref(), Ok(&address));
        }
        Err(error) => {
            message::check_message(&error);
            assert!(!(matches!(error, AddressError::HostName(_)) && text.contains(['[', ']', '/', '%'])));
        }
    }
});
