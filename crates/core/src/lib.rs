#![forbid(unsafe_code)]
//! What the module can decide without nginx: the vocabulary and the rules. Time and randomness are arguments, so that
//! the tests need seconds, and no nginx.

pub mod model;
pub mod ops;
