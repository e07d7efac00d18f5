//! Values of parameters: what is taken is within the bounds and means the same when it is written as a plain number.

#![cfg_attr(feature = "libfuzzer", no_main)]

use nginx_upstream_control_fuzz::fuzz_target;
use upstream_control_core::model::params::{PARAMS, Params};

mod message;

fuzz_target!(|text: &str| {
    for row in &PARAMS {
        match row.param.parse(text) {
            Ok(value) => {
                assert!((row.min..=row.max).contains(&value));
                assert_eq!(row.param.parse(&value.to_string()), Ok(value));
                let mut params = Params::default();
                params.set(row.param, value);
                assert_eq!(params.get(row.param), value);
            }
            Err(error) => {
                message::check_message(&error);
                assert_eq!(error.param(), row.param);
            }
        }
    }
});
