#![forbid(unsafe_code)]
//! What the module can decide without nginx: the vocabulary, the rules, and the requests and replies. Time and randomness
//! are arguments, so that the tests need seconds, and no nginx.

pub mod forms;
pub mod http;
pub mod model;
pub mod ops;
