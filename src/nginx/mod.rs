//! A thin adapter over `ngx` and `nginx-sys`: configuration, requests, logs, memory, events, time.

pub mod access;
mod body;
pub mod caller;
pub mod command;
pub mod conf;
pub mod death;
pub mod event;
#[cfg(test)]
#[cfg(feature = "nginx-objs")]
pub mod fixture;
mod handler;
pub mod hosts;
pub mod http;
pub mod listen;
pub mod log;
pub mod memory;
pub mod pieces;
pub mod process;
mod reply;
mod request;
pub mod shm;
pub mod time;
pub mod timer;
pub mod upstream;
mod work;
