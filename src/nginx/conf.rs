//! Reading a configuration: directives, their settings, and where nginx keeps those.

use std::ffi::{CStr, c_char, c_void};
use std::ptr::{self, NonNull};
use std::sync::atomic::{AtomicPtr, Ordering};

use nginx_sys::{
    NGX_LOG_EMERG, NGX_LOG_WARN, ngx_array_t, ngx_conf_t, ngx_cycle_t, ngx_http_conf_ctx_t,
    ngx_http_core_loc_conf_t, ngx_http_core_module, ngx_http_module, ngx_http_request_t, ngx_int_t,
    ngx_module_t, ngx_palloc, ngx_parse_time, ngx_pool_cleanup_add, ngx_pool_t, ngx_str_t,
};

/// What a directive's handler returns when all is well.
pub const CONF_OK: *mut c_char = ptr::null_mut();

/// What it returns when it has logged an error: nginx's NGX_CONF_ERROR.
pub const CONF_ERROR: *mut c_char = ptr::without_provenance_mut(usize::MAX);

/// What nginx writes into numbers and flags that no directive has set yet: NGX_CONF_UNSET.
pub const UNSET: isize = -1;

/// Runs the handler of a directive: a panic, or none, is an error.
pub fn guarded(handler: impl FnOnce() -> Option<*mut c_char>) -> *mut c_char {
    std::panic::catch_unwind(std::panic::AssertUnwindSafe(handler)).ok().flatten().unwrap_or(CONF_ERROR)
}

/// This module's `ngx_module_t`, told by the crate's root before any directive is read.
static MODULE: AtomicPtr<ngx_module_t> = AtomicPtr::new(ptr::null_mut());

/// Tells which module this is. Called by `preconfiguration`.
pub fn set_module(module: *mut ngx_module_t) {
    MODULE.store(module, Ordering::Relaxed);
}

/// This module's `ngx_module_t`; null before the first `preconfiguration`.
pub fn module() -> *const ngx_module_t {
    MODULE.load(Ordering::Relaxed)
}

/// Place of this module's settings among those of all http modules.
fn ctx_index() -> usize {
    // SAFETY: the pointer is to a static of this file, whose `ctx_index` nginx sets when it loads the module.
    unsafe { module().as_ref() }.map_or(usize::MAX, |module| module.ctx_index)
}

/// One of the settings in an array of nginx's.
///
/// # Safety
///
/// `confs` is null or such an array, and this module's settings of that kind are a `T`.
unsafe fn at<T>(confs: *mut *mut c_void) -> Option<NonNull<T>> {
    if confs.is_null() || module().is_null() {
        return None;
    }
    // SAFETY: see above; the array has a place for each http module.
    NonNull::new(unsafe { *confs.add(ctx_index()) }.cast())
}

/// This module's main settings, for a request.
///
/// # Safety
///
/// They are a `T`; the request is alive.
pub unsafe fn main_conf_of_request<T>(r: *mut ngx_http_request_t) -> Option<NonNull<T>> {
    // SAFETY: see above.
    unsafe { at((*r).main_conf) }
}

/// This module's location settings, for a request.
///
/// # Safety
///
/// They are a `T`; the request is alive.
pub unsafe fn loc_conf_of_request<T>(r: *mut ngx_http_request_t) -> Option<NonNull<T>> {
    // SAFETY: see above.
    unsafe { at((*r).loc_conf) }
}

/// What this module keeps of a request; none if it keeps nothing.
///
/// # Safety
///
/// It is a `T`; the request is alive.
pub unsafe fn ctx_of_request<T>(r: *mut ngx_http_request_t) -> Option<NonNull<T>> {
    // SAFETY: see above.
    unsafe { at((*r).ctx) }
}

/// Keeps something of a request, which must live as long as it.
///
/// # Safety
///
/// The request is alive.
pub unsafe fn set_ctx_of_request<T>(r: *mut ngx_http_request_t, value: NonNull<T>) {
    // SAFETY: the array has a place for each http module.
    unsafe { *(*r).ctx.add(ctx_index()) = value.as_ptr().cast() };
}

/// This module's main settings, in a running configuration; none without an http block.
///
/// # Safety
///
/// They are a `T`; the configuration is whole.
pub unsafe fn main_conf_of_cycle<T>(cycle: *mut ngx_cycle_t) -> Option<NonNull<T>> {
    // SAFETY: `conf_ctx` has a place for each module, which is null for http without an http block.
    unsafe {
        let http = *(*cycle).conf_ctx.add((&raw const ngx_http_module.index).read());
        at(http.cast::<ngx_http_conf_ctx_t>().as_ref()?.main_conf)
    }
}

/// nginx's type of a content handler.
pub type ContentHandler = unsafe extern "C" fn(*mut ngx_http_request_t) -> ngx_int_t;

/// The core's settings of the present location.
///
/// # Safety
///
/// Called for a directive in a location, or when locations are merged.
pub unsafe fn core_loc_conf(cf: NonNull<ngx_conf_t>) -> Option<*mut ngx_http_core_loc_conf_t> {
    // SAFETY: inside a location nginx's core has settings of it at its place.
    unsafe {
        let index = (&raw const ngx_http_core_module.ctx_index).read();
        Some((*(*context(cf)?.as_ptr()).loc_conf.add(index)).cast())
    }
}

/// The http settings in whose context the configuration is being read.
///
/// # Safety
///
/// Called inside an http block, or in `postconfiguration`.
pub unsafe fn context(cf: NonNull<ngx_conf_t>) -> Option<NonNull<ngx_http_conf_ctx_t>> {
    // SAFETY: inside http blocks nginx keeps this structure there.
    NonNull::new(unsafe { (*cf.as_ptr()).ctx }.cast())
}

/// This module's main settings, while the configuration is read.
///
/// # Safety
///
/// They are a `T`; called inside an http block, or in `postconfiguration`.
pub unsafe fn main_conf<T>(cf: NonNull<ngx_conf_t>) -> Option<NonNull<T>> {
    // SAFETY: see above.
    unsafe { at((*context(cf)?.as_ptr()).main_conf) }
}

/// This module's settings of the present server or upstream block, while the configuration is read.
///
/// # Safety
///
/// They are a `T`; called inside an http block, or in `postconfiguration`.
pub unsafe fn srv_conf<T>(cf: NonNull<ngx_conf_t>) -> Option<NonNull<T>> {
    // SAFETY: see above.
    unsafe { at((*context(cf)?.as_ptr()).srv_conf) }
}

/// This module's settings in a given array of server or upstream settings.
///
/// # Safety
///
/// They are a `T`, and the array is null or nginx's.
pub unsafe fn srv_conf_in<T>(confs: *mut *mut c_void) -> Option<NonNull<T>> {
    // SAFETY: see above.
    unsafe { at(confs) }
}

/// The bytes of a string of nginx's; empty for a null string.
///
/// # Safety
///
/// The string points to its bytes, which live at least as long as the result is used.
pub unsafe fn bytes<'a>(string: &ngx_str_t) -> &'a [u8] {
    if string.data.is_null() {
        return &[];
    }
    // SAFETY: see above.
    unsafe { std::slice::from_raw_parts(string.data, string.len) }
}

/// A copy of a string in a pool, followed by a zero byte.
///
/// # Safety
///
/// The pool is alive.
pub unsafe fn pool_str(pool: *mut ngx_pool_t, string: &str) -> Option<ngx_str_t> {
    // SAFETY: the chunk is one byte longer than the string, and nobody else knows it.
    unsafe {
        let data = NonNull::new(ngx_palloc(pool, string.len() + 1).cast::<u8>())?.as_ptr();
        data.copy_from_nonoverlapping(string.as_ptr(), string.len());
        data.add(string.len()).write(0);
        Some(ngx_str_t { len: string.len(), data })
    }
}

/// Moves a value into a pool, which drops it when it is destroyed.
///
/// # Safety
///
/// The pool is alive.
pub unsafe fn pool_value<T>(pool: *mut ngx_pool_t, value: T) -> Option<NonNull<T>> {
    // SAFETY: nginx gives a chunk of this size, aligned for anything, and calls the handler once, at the pool's end.
    unsafe {
        let cleanup = ngx_pool_cleanup_add(pool, size_of::<T>());
        let data = NonNull::new(cleanup.as_ref()?.data.cast::<T>())?;
        data.write(value);
        (*cleanup).handler = Some(drop_value::<T>);
        Some(data)
    }
}

/// nginx's entry at the end of a pool.
unsafe extern "C" fn drop_value<T>(value: *mut c_void) {
    // SAFETY: `pool_value` wrote a T there, and nginx calls this once.
    unsafe { ptr::drop_in_place(value.cast::<T>()) };
}

/// The words of a directive, its name first.
///
/// # Safety
///
/// Called by the directive's handler.
pub unsafe fn args<'a>(cf: NonNull<ngx_conf_t>) -> Vec<&'a [u8]> {
    // SAFETY: nginx fills in the words before it calls the handler; their bytes live in the configuration's pool.
    unsafe {
        let array: *mut ngx_array_t = (*cf.as_ptr()).args;
        let Some(array) = array.as_ref() else {
            return Vec::new();
        };
        array.as_slice::<ngx_str_t>().iter().map(|word| bytes(word)).collect()
    }
}

/// A length of time as nginx's directives take it, `1m30s`, in seconds; none if the word is none.
///
/// # Safety
///
/// nginx's own code runs in this process.
pub unsafe fn seconds(word: &[u8]) -> Option<u64> {
    let mut word = ngx_str_t { len: word.len(), data: word.as_ptr().cast_mut() };
    if word.len == 0 {
        return None;
    }
    // SAFETY: see above; the bytes are only read.
    u64::try_from(unsafe { ngx_parse_time(&raw mut word, 1) }).ok()
}

/// Where a block begins, as nginx writes it.
///
/// # Safety
///
/// `file` is null, or a string with a zero byte at its end.
pub unsafe fn place_of(file: *const u8, line: usize) -> String {
    // SAFETY: see above.
    let file = if file.is_null() { c"" } else { unsafe { CStr::from_ptr(file.cast()) } };
    format!("{}:{line}", file.to_string_lossy())
}

/// Where the present directive stands, as nginx writes it.
///
/// # Safety
///
/// Called by the directive's handler.
pub unsafe fn place(cf: NonNull<ngx_conf_t>) -> String {
    // SAFETY: while nginx parses a file it keeps its name there, with a zero byte at its end; without a file there is none.
    unsafe {
        let Some(file) = (*cf.as_ptr()).conf_file.as_ref() else { return "the command line".to_owned() };
        place_of(file.file.name.data, file.line)
    }
}

/// Logs an error of the configuration that is found when all of it was read, with the place that it is about.
///
/// # Safety
///
/// Called while the configuration is read.
pub unsafe fn emerg_at(cf: NonNull<ngx_conf_t>, place: &str, message: &str) {
    // SAFETY: see above.
    unsafe { log_at(cf, NGX_LOG_EMERG, place, message) };
}

/// The same of a warning.
///
/// # Safety
///
/// See [`emerg_at`].
pub unsafe fn warn_at(cf: NonNull<ngx_conf_t>, place: &str, message: &str) {
    // SAFETY: see above.
    unsafe { log_at(cf, NGX_LOG_WARN, place, message) };
}

/// The same of a level.
///
/// # Safety
///
/// See [`emerg_at`].
unsafe fn log_at(cf: NonNull<ngx_conf_t>, level: u32, place: &str, message: &str) {
    // SAFETY: the log of a configuration that is read lives.
    let log = unsafe { (*cf.as_ptr()).log };
    // SAFETY: likewise.
    unsafe { ngx::log::log_error(level as usize, log, 0, format!("{message} in {place}").as_bytes()) };
}

/// Logs an error of the configuration file, at the present line.
///
/// # Safety
///
/// Called while the configuration is read.
pub unsafe fn emerg(cf: NonNull<ngx_conf_t>, message: &str) -> *mut c_char {
    ngx::ngx_conf_log_error!(NGX_LOG_EMERG, cf.as_ptr(), "{message}");
    CONF_ERROR
}

/// The same of a warning.
///
/// # Safety
///
/// Called while the configuration is read.
pub unsafe fn warn(cf: NonNull<ngx_conf_t>, message: &str) {
    ngx::ngx_conf_log_error!(NGX_LOG_WARN, cf.as_ptr(), "{message}");
}
