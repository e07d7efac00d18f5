//! Directives that give a location to one of the handlers.

use std::ffi::{c_char, c_void};
use std::ptr::{self, NonNull};

use nginx_sys::{ngx_command_t, ngx_conf_t, ngx_http_handler_pt};

use crate::forms::{Dialect, HostErrors, Methods, Role, Settings};
use crate::handlers::{ngx_http_upstream_control_handler, ngx_http_upstream_status_handler};
use crate::nginx::conf::{self, CONF_ERROR, CONF_OK, ContentHandler};
use crate::nginx::upstream;

use super::warnings::ControlLocation;
use super::{HttpSettings, hosts};

/// nginx's entry: `upstream_status [control=/URI];`.
pub(super) unsafe extern "C" fn cmd_location_status(
    cf: *mut ngx_conf_t,
    cmd: *mut ngx_command_t,
    conf: *mut c_void,
) -> *mut c_char {
    conf::guarded(|| {
        let cf = NonNull::new(cf)?;
        // SAFETY: nginx calls this with the settings of the location, in which these lie at the command's offset.
        Some(unsafe { status(cf, conf.byte_add((*cmd).offset).cast::<Settings>().as_mut()?) })
    })
}

/// nginx's entry: `upstream_control [methods=POST] [upstream=NAME] [host_errors=200];`.
pub(super) unsafe extern "C" fn cmd_location_control(
    cf: *mut ngx_conf_t,
    cmd: *mut ngx_command_t,
    conf: *mut c_void,
) -> *mut c_char {
    // SAFETY: nginx calls this for a directive in a location, with what it has for that.
    conf::guarded(|| unsafe { control(cf, cmd, conf, Dialect::Any) })
}

/// Reads the parameters of `upstream_status`, and takes the location.
///
/// # Safety
///
/// Called by the directive's handler.
unsafe fn status(cf: NonNull<ngx_conf_t>, settings: &mut Settings) -> *mut c_char {
    // SAFETY: see above.
    unsafe {
        for word in conf::args(cf).iter().skip(1) {
            let Some(uri) = word.strip_prefix(b"control=") else {
                let word = String::from_utf8_lossy(word);
                return conf::emerg(
                    cf,
                    &format!("invalid parameter \"{word}\", it must be \"control=/URI\""),
                );
            };
            match own_uri(uri) {
                Some(uri) => settings.control = Some(uri.to_owned()),
                None => {
                    let uri = String::from_utf8_lossy(uri);
                    let message = format!(
                        "invalid control URI \"{uri}\", it must be a path of this site that begins with \"/\""
                    );
                    return conf::emerg(cf, &message);
                }
            }
        }
        let taken = take(cf, Some(ngx_http_upstream_status_handler));
        if taken == CONF_OK {
            settings.role = Role::Status;
        }
        taken
    }
}

/// The URI, if browsers take it for one of the site that they are on. They read `//host/` and `/\host/` as another site,
/// also with line breaks and tabs in between.
fn own_uri(uri: &[u8]) -> Option<&str> {
    let uri = str::from_utf8(uri).ok()?;
    let path = uri.strip_prefix('/')?;
    let is_own = !path.starts_with(['/', '\\']) && !uri.contains(|c: char| c.is_control());
    is_own.then_some(uri)
}

/// nginx's entry: `upstream_conf [methods=POST];`.
pub(super) unsafe extern "C" fn cmd_location_conf(
    cf: *mut ngx_conf_t,
    cmd: *mut ngx_command_t,
    conf: *mut c_void,
) -> *mut c_char {
    // SAFETY: nginx calls this for a directive in a location, with what it has for that.
    conf::guarded(|| unsafe { control(cf, cmd, conf, Dialect::UpstreamConf) })
}

/// Reads the parameters of `upstream_control` or `upstream_conf`, and takes the location. None if nginx gave no
/// settings.
///
/// # Safety
///
/// Called by the directive's handler, with what nginx gave it.
unsafe fn control(
    cf: *mut ngx_conf_t,
    cmd: *mut ngx_command_t,
    conf: *mut c_void,
    dialect: Dialect,
) -> Option<*mut c_char> {
    // SAFETY: see above. The settings of the location have these at the command's offset. They are written only once the
    // location is known to be free.
    unsafe {
        let cf = NonNull::new(cf)?;
        let settings = conf.byte_add((*cmd).offset).cast::<Settings>().as_mut()?;
        let named = settings.named.clone();
        let place = conf::place(cf);
        let mut wanted = Settings { role: Role::Control, dialect, named, place, ..Settings::default() };
        for word in conf::args(cf).iter().skip(1) {
            if let Err(problem) = parameter(&mut wanted, word) {
                let allowed = if problem == DUPLICATE { "" } else { allowed(word, dialect) };
                let word = String::from_utf8_lossy(word);
                return Some(conf::emerg(cf, &format!("{problem} parameter \"{word}\"{allowed}")));
            }
        }
        let taken = take(cf, Some(ngx_http_upstream_control_handler));
        if taken == CONF_OK {
            *settings = wanted;
        }
        Some(taken)
    }
}

/// What is wrong with a parameter that is there twice.
const DUPLICATE: &str = "duplicate";

/// The forms that are allowed, to be said after a parameter that has none of them.
fn allowed(word: &[u8], dialect: Dialect) -> &'static str {
    if word.starts_with(b"methods=") || dialect == Dialect::UpstreamConf {
        ", it must be \"methods=POST\""
    } else if word.starts_with(b"host_errors=") {
        ", it must be \"host_errors=200\""
    } else {
        ", it must be \"methods=POST\", \"upstream=NAME\" or \"host_errors=200\""
    }
}

/// Takes a parameter of `upstream_control` or `upstream_conf`; the error is what it is.
fn parameter(wanted: &mut Settings, word: &[u8]) -> Result<(), &'static str> {
    let before = wanted.clone();
    match (word, wanted.dialect) {
        (b"methods=POST", _) => wanted.methods = Methods::PostOnly,
        (b"host_errors=200", Dialect::Any) => wanted.host_errors = HostErrors::Ok,
        (word, Dialect::Any) => {
            let name = word.strip_prefix(b"upstream=").filter(|name| !name.is_empty());
            let name = name.and_then(|name| str::from_utf8(name).ok()).ok_or("invalid")?;
            if wanted.upstream.replace(name.to_owned()).is_some() {
                return Err(DUPLICATE);
            }
        }
        _ => return Err("invalid"),
    }
    if *wanted == before { Err(DUPLICATE) } else { Ok(()) }
}

/// Gives the location to a handler.
///
/// # Safety
///
/// Called by the handler of a directive in a location.
unsafe fn take(cf: NonNull<ngx_conf_t>, handler: ngx_http_handler_pt) -> *mut c_char {
    // SAFETY: inside a location nginx's core has settings of it at its place.
    unsafe {
        let Some(core) = conf::core_loc_conf(cf) else { return CONF_ERROR };
        let ours: [ContentHandler; 2] = [ngx_http_upstream_status_handler, ngx_http_upstream_control_handler];
        if (*core).handler.is_some_and(|present| ours.iter().any(|ours| ptr::fn_addr_eq(present, *ours))) {
            return c"is duplicate, or a second handler of this location".as_ptr().cast_mut();
        }
        if (*core).handler.is_some() {
            conf::warn(cf, "another directive of this location is without effect: this one takes it");
        }
        (*core).handler = handler;
    }
    CONF_OK
}

/// Hands the settings of a location on to a block inside it that has none of its own: nginx switches to those of an `if`
/// or a `limit_except` and keeps the handler of the location, or, for the latter, asks for one.
///
/// The upstream that a location is for must be there: now all of them were read.
///
/// # Safety
///
/// Called when nginx merges the settings of `cf`'s location with those around it.
pub unsafe fn inherit(
    cf: NonNull<ngx_conf_t>,
    http: &mut HttpSettings,
    around: &Settings,
    own: &mut Settings,
) -> *mut c_char {
    // SAFETY: the duty of the caller, for both.
    unsafe {
        if own.role == Role::Control {
            http.controls.extend(ControlLocation::present(cf, own));
        }
        let inherited = inherit_role(cf, around, own);
        if inherited == CONF_OK {
            hosts::settle(cf, http, around, own);
        }
        inherited
    }
}

/// The same, but for the hosts.
///
/// # Safety
///
/// See [`inherit`].
unsafe fn inherit_role(cf: NonNull<ngx_conf_t>, around: &Settings, own: &mut Settings) -> *mut c_char {
    if let Some(name) = &own.upstream {
        // SAFETY: while locations are merged nginx's context has the settings of the http block.
        let mut upstreams = unsafe { upstream::all(cf) }.into_iter();
        if !upstreams.any(|upstream| !upstream.is_implicit() && upstream.name().eq_ignore_ascii_case(name)) {
            // SAFETY: nginx reads the configuration.
            return unsafe { conf::emerg(cf, &format!("upstream_control: no upstream \"{name}\"")) };
        }
    }
    if own.role != Role::None || around.role == Role::None {
        return CONF_OK;
    }
    // SAFETY: while locations are merged nginx's context is that of the inner one.
    unsafe {
        let Some(core) = conf::core_loc_conf(cf) else { return CONF_ERROR };
        if (*core).noname() == 0 && (*core).lmt_excpt() == 0 {
            return CONF_OK;
        }
        *own = around.clone();
        if (*core).lmt_excpt() != 0 && (*core).handler.is_none() {
            (*core).handler = match own.role {
                Role::Control => Some(ngx_http_upstream_control_handler),
                Role::Status | Role::None => Some(ngx_http_upstream_status_handler),
            };
        }
    }
    CONF_OK
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parameters_of_control() {
        let read = |dialect, words: &[&str]| {
            let mut settings = Settings { dialect, ..Settings::default() };
            let read = words.iter().try_for_each(|word| parameter(&mut settings, word.as_bytes()));
            read.map(|()| (settings.methods, settings.upstream, settings.host_errors))
        };
        let any = |words: &[&str]| read(Dialect::Any, words);
        let (get, post) = (Methods::Any, Methods::PostOnly);
        let app = Some("app".to_owned());
        assert_eq!(any(&[]), Ok((get, None, HostErrors::Failed)));
        assert_eq!(any(&["upstream=app"]), Ok((get, app.clone(), HostErrors::Failed)));
        assert_eq!(
            any(&["host_errors=200", "upstream=app", "methods=POST"]),
            Ok((post, app, HostErrors::Ok))
        );
        for word in ["", "upstream", "upstream=", "host_errors=500", "host_errors=", "methods=GET", "app"] {
            assert_eq!(any(&[word]), Err("invalid"), "{word}");
        }
        for word in ["upstream=app", "host_errors=200", "methods=POST"] {
            assert_eq!(any(&[word, word]), Err("duplicate"), "{word}");
        }
        assert_eq!(any(&["upstream=a", "upstream=b"]), Err("duplicate"));
        let conf = |word| read(Dialect::UpstreamConf, &[word]);
        assert_eq!(conf("methods=POST"), Ok((post, None, HostErrors::Failed)));
        assert_eq!(conf("upstream=app"), Err("invalid"));
        assert_eq!(conf("host_errors=200"), Err("invalid"));
    }

    #[test]
    fn a_control_uri_is_of_the_same_site() {
        for uri in ["/control", "/", "/a?b=c&d", "/<\"'>", "/a//b", "/\u{20ac}"] {
            assert_eq!(own_uri(uri.as_bytes()), Some(uri));
        }
        for uri in ["", "control", "http://h/", "//h/", "/\\h/", "/\t/h/", "/a\n", " /a"] {
            assert_eq!(own_uri(uri.as_bytes()), None, "{uri:?}");
        }
        assert_eq!(own_uri(b"/\xff"), None);
    }
}
