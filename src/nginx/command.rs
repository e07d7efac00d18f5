//! Calling the handler of another module's directive, as if the configuration had it.

use std::ffi::{CStr, c_char, c_void};
use std::ptr;

use nginx_sys::{
    ngx_array_t, ngx_command_t, ngx_conf_t, ngx_http_conf_ctx_t, ngx_module_t, ngx_pcalloc, ngx_str_t,
};

use super::conf;

/// The module with this name.
///
/// # Safety
///
/// Called while a configuration is read.
pub unsafe fn find_module(conf: *mut ngx_conf_t, name: &CStr) -> Option<*mut ngx_module_t> {
    // SAFETY: nginx ends the array of a configuration's modules with a null pointer.
    unsafe {
        let mut modules = (*(*conf).cycle).modules;
        while !(*modules).is_null() {
            let module = *modules;
            if !(*module).name.is_null() && CStr::from_ptr((*module).name) == name {
                return Some(module);
            }
            modules = modules.add(1);
        }
    }
    None
}

/// The directive of a module with this name.
///
/// # Safety
///
/// `module` is one of nginx's modules.
pub unsafe fn find_command(module: *mut ngx_module_t, name: &str) -> Option<*mut ngx_command_t> {
    // SAFETY: nginx ends a module's directives with one without a name.
    unsafe {
        let mut command = (*module).commands;
        while !command.is_null() && (*command).name.len != 0 {
            if conf::bytes(&(*command).name) == name.as_bytes() {
                return Some(command);
            }
            command = command.add(1);
        }
    }
    None
}

/// Calls the handler of a directive of an http module with these words, the directive's name first, in an http context.
/// What the handler returns; none if there is none, or no memory.
///
/// # Safety
///
/// Called while a configuration is read; `command` is a directive of `module`, and `context` one in which nginx would
/// call it.
pub unsafe fn run(
    conf: *mut ngx_conf_t,
    module: *mut ngx_module_t,
    command: *mut ngx_command_t,
    context: *mut ngx_http_conf_ctx_t,
    words: &[&str],
) -> Option<*mut c_char> {
    // SAFETY: see above. The handler is given what nginx gives it: the words, and the settings of its module on the
    // level of the context that the directive names by an offset into it.
    unsafe {
        let set = (*command).set?;
        let mut args = words_array(conf, words)?;
        let saved = ((*conf).ctx, (*conf).args);
        (*conf).ctx = context.cast();
        (*conf).args = &raw mut args;
        let confs = *context.byte_add((*command).conf).cast::<*mut *mut c_void>();
        let own = if confs.is_null() { ptr::null_mut() } else { *confs.add((*module).ctx_index) };
        let result = set(conf, command, own);
        ((*conf).ctx, (*conf).args) = saved;
        Some(result)
    }
}

/// The words of a directive as nginx's parser leaves them: each followed by a zero byte, in memory that handlers may
/// write to.
///
/// # Safety
///
/// Called while a configuration is read.
unsafe fn words_array(conf: *mut ngx_conf_t, words: &[&str]) -> Option<ngx_array_t> {
    // SAFETY: the pool lives while the configuration is read; the array has room for the words.
    unsafe {
        let size = words.len().checked_mul(size_of::<ngx_str_t>())?;
        let elts = ngx_pcalloc((*conf).pool, size.max(1)).cast::<ngx_str_t>();
        if elts.is_null() {
            return None;
        }
        for (at, word) in words.iter().enumerate() {
            elts.add(at).write(conf::pool_str((*conf).pool, word)?);
        }
        Some(ngx_array_t {
            elts: elts.cast(),
            nelts: words.len(),
            size: size_of::<ngx_str_t>(),
            nalloc: words.len(),
            pool: (*conf).pool,
        })
    }
}
