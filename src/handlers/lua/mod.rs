//! The functions that the module exports for scripts in nginx's own process: what `lualib/` calls through LuaJIT's FFI.
//!
//! All that is said in either direction lies in memory of the caller: nothing that Rust allocates is handed out, nothing
//! has to be given back, and nothing is kept after the return. Texts are pointer and length, and may hold any byte. What
//! the caller gets is written into the memory of a [`Reply`]:
//!
//! | function | what is there | after that, in `count` rows |
//! |---|---|---|
//! | `.._version` | nothing: the version is what is returned | |
//! | `.._upstreams` | | [`rows::UpstreamRow`] |
//! | `.._peers` | [`rows::UpstreamRow`] | [`rows::PeerRow`] |
//! | `.._change` | [`change::Done`] | |
//! | `.._current_upstream` | the name | |
//!
//! All but the first return [`OK`](failure::OK); or [`MORE`](failure::MORE), if the memory is too small, and `len` says how much is needed: nothing
//! was done then but to look; or [`REFUSED`], and what is there is a word for programs, a blank, and words for people, of
//! which as much as fits. `.._change` never returns `MORE`.
//!
//! None of the locks of nginx or of this module may be held by the caller, and none are: no script runs under them.

mod change;
mod failure;
mod reply;
mod rows;
#[cfg(test)]
mod tests;

use std::ffi::c_int;

use crate::forms::{Kind, Refusal};
use crate::model::log::Level;
use crate::nginx::caller::Caller;
use crate::nginx::http::ngx_http_request_t;
use crate::nginx::memory;
use crate::ops::Upstreams;

use super::context::Context;
use change::{Ask, Texts};
use failure::{Failure, REFUSED};
use reply::{Reply, Space};

/// Version of all of this. It is raised when a function, a structure or the meaning of either changes, so that the Lua
/// files of another version refuse to work rather than read nonsense.
const VERSION: u32 = 2;

/// What is said where there is no memory for more words: those of [`Failure`].
const EXHAUSTED: &str = "NoMemory no memory left in the worker process, try again";

/// Version of the interface.
#[unsafe(no_mangle)]
pub extern "C" fn ngx_http_upstream_control_ffi_version() -> u32 {
    VERSION
}

/// All upstreams, without their servers.
///
/// # Safety
///
/// `reply` points to a [`Reply`] with its memory. Called in one of nginx's processes, in its only thread.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ngx_http_upstream_control_ffi_upstreams(reply: *mut Reply) -> c_int {
    // SAFETY: the duty of the caller.
    unsafe { answer(reply, std::ptr::null_mut(), |caller, space| rows::upstreams(upstreams(caller)?, space)) }
}

/// One upstream, by its name or that of its zone, and its servers.
///
/// # Safety
///
/// `reply` points to a [`Reply`] with its memory, `name` to `len` bytes. Called in one of nginx's processes, in its only
/// thread.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ngx_http_upstream_control_ffi_peers(
    reply: *mut Reply,
    name: *const u8,
    len: usize,
) -> c_int {
    // SAFETY: the duty of the caller.
    let name = unsafe { reply::bytes(name, len) };
    // SAFETY: the duty of the caller.
    unsafe {
        answer(reply, std::ptr::null_mut(), |caller, space| {
            rows::peers(upstreams(caller)?, name, caller.now(), space)
        })
    }
}

/// Changes servers of one upstream: all of it is done, or nothing. When it returns, every worker balances by it.
///
/// # Safety
///
/// `reply` points to a [`Reply`] with its memory, `ask` to an [`Ask`], `texts` to [`Texts`] whose pointers are to as many
/// bytes as it says. `r` is null, or the request that the caller is serving. Called in one of nginx's processes, in its
/// only thread.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ngx_http_upstream_control_ffi_change(
    reply: *mut Reply,
    ask: *const Ask,
    texts: *const Texts,
    r: *mut ngx_http_request_t,
) -> c_int {
    // SAFETY: the duty of the caller.
    unsafe {
        answer(reply, r, |caller, space| {
            let words = texts.as_ref().and_then(|texts| texts.words(ask.as_ref()?)).ok_or_else(no_memory)?;
            change::carry_out(upstreams(caller)?, caller, &words, space)
        })
    }
}

/// Name of the upstream that a request is sent to.
///
/// # Safety
///
/// `reply` points to a [`Reply`] with its memory. `r` is null, or the request that the caller is serving. Called in one of
/// nginx's processes, in its only thread.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ngx_http_upstream_control_ffi_current_upstream(
    reply: *mut Reply,
    r: *mut ngx_http_request_t,
) -> c_int {
    // SAFETY: the duty of the caller.
    unsafe {
        answer(reply, r, |caller, space| {
            space.text(caller.upstream()?);
            Ok(())
        })
    }
}

/// Answers a call by what `work` writes, or by why it wrote nothing.
///
/// # Safety
///
/// `reply` is null or points to a [`Reply`] with its memory; `r` is null, or the request that the caller is serving. This is
/// one of nginx's processes, in its only thread.
unsafe fn answer(
    reply: *mut Reply,
    r: *mut ngx_http_request_t,
    work: impl FnOnce(&Caller<'_>, &mut Space<'_>) -> Result<(), Failure>,
) -> c_int {
    // SAFETY: the duty of the caller.
    let Some(reply) = (unsafe { reply.as_mut() }) else { return REFUSED };
    // SAFETY: the duty of the caller.
    unsafe {
        Caller::serve(r, REFUSED, |caller| {
            let mut space = Space::new(reply);
            if !memory::is_left() {
                return space.refuse_with(EXHAUSTED);
            }
            match work(caller, &mut space) {
                Ok(()) => space.close(),
                Err(failure) => {
                    log(caller, &failure);
                    space.refuse(&failure)
                }
            }
        })
    }
}

/// Tells the log why a call came to nothing.
fn log(caller: &Caller<'_>, failure: &Failure) {
    let level = if failure.is_grave { Level::Error } else { Level::Info };
    if let Some(log) = caller.log() {
        log.write(level, format_args!("upstream control: a script was refused: {}", failure.text));
    }
}

/// The upstreams of the running configuration.
fn upstreams<'a>(caller: &'a Caller<'_>) -> Result<&'a dyn Upstreams, Failure> {
    // SAFETY: the module's main configuration begins with a `Context`: see there.
    let context = unsafe { caller.main_conf::<Context>() };
    let context = context.filter(|context| context.is_started.get());
    let context =
        context.ok_or_else(|| Failure::new("NotStarted", "not available before the workers start"))?;
    context.upstreams.as_deref().ok_or_else(|| Refusal::no_memory_zone().into())
}

/// The refusal of a call without the memory that it is about.
fn no_memory() -> Failure {
    Refusal::new(Kind::BadArgument, "a pointer is null").into()
}
