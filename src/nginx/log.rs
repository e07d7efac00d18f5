//! nginx's error log.

use std::borrow::Cow;
use std::fmt::{self, Write};
use std::marker::PhantomData;
use std::ptr::NonNull;

use nginx_sys::{
    NGX_LOG_ALERT, NGX_LOG_ERR, NGX_LOG_INFO, NGX_LOG_NOTICE, NGX_LOG_WARN, ngx_cycle, ngx_cycle_t,
    ngx_log_t, ngx_uint_t,
};

/// How grave a message is, in nginx's words.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Level {
    /// Must not happen: a bug, or memory that was overwritten.
    Alert,
    /// Something asked for could not be done.
    Error,
    /// Works, but not as somebody may expect.
    Warn,
    /// Something changed.
    Notice,
    /// Of use when one looks for it.
    Info,
}

impl Level {
    /// nginx's number; larger is less grave.
    fn number(self) -> ngx_uint_t {
        let number = match self {
            Self::Alert => NGX_LOG_ALERT,
            Self::Error => NGX_LOG_ERR,
            Self::Warn => NGX_LOG_WARN,
            Self::Notice => NGX_LOG_NOTICE,
            Self::Info => NGX_LOG_INFO,
        };
        // A level is at most 8.
        number as ngx_uint_t
    }
}

/// A log, while what it belongs to lives. A request's log adds the client and the request line to each message.
#[derive(Clone, Copy)]
pub struct Log<'a> {
    /// nginx's structure.
    raw: NonNull<ngx_log_t>,
    /// The request or the cycle that it belongs to.
    owner: PhantomData<&'a ngx_log_t>,
}

impl<'a> Log<'a> {
    /// The view of a log; `None` for a null pointer.
    ///
    /// # Safety
    ///
    /// `raw` must be null or a log that lives for `'a`.
    pub unsafe fn from_raw(raw: *mut ngx_log_t) -> Option<Self> {
        NonNull::new(raw).map(|raw| Self { raw, owner: PhantomData })
    }

    /// The log of a cycle; `None` if there is none yet.
    ///
    /// # Safety
    ///
    /// `cycle` must be null or a cycle that lives for `'a`.
    pub unsafe fn from_cycle(cycle: *const ngx_cycle_t) -> Option<Self> {
        // SAFETY: by the duty of the caller the cycle is readable; nginx sets its log before it calls any module.
        unsafe { cycle.as_ref().and_then(|cycle| Self::from_raw(cycle.log)) }
    }

    /// The log of the configuration that this process runs, for the present event; `None` if there is none yet.
    pub fn of_process() -> Option<Self> {
        // SAFETY: a configuration lives at least as long as an event that is handled under it.
        unsafe { Self::from_cycle((&raw const ngx_cycle).read()) }
    }

    /// Whether the log takes messages of this level.
    pub fn takes(self, level: Level) -> bool {
        // SAFETY: the log lives for `'a`, and nginx writes to it from this thread only.
        level.number() <= unsafe { (*self.raw.as_ptr()).log_level }
    }

    /// Writes a message if the log takes messages of this level. nginx cuts it after some 2000 bytes. Control
    /// characters are escaped, so that nobody can forge a line.
    pub fn write(self, level: Level, message: impl fmt::Display) {
        if !self.takes(level) {
            return;
        }
        let raw = self.raw.as_ptr();
        let message = message.to_string();
        let message = escaped(&message);
        // SAFETY: the log lives for `'a`; nginx copies the bytes before it returns. No lock is held here, as the rooms
        // that hold locks do not log.
        unsafe { ngx::log::log_error(level.number(), raw, 0, message.as_bytes()) };
    }

    /// Writes an error without memory of the heap.
    pub fn error_without_memory(self, message: &'static str) {
        if self.takes(Level::Error) {
            let (level, raw) = (Level::Error.number(), self.raw.as_ptr());
            // SAFETY: as in `write`.
            unsafe { ngx::log::log_error(level, raw, 0, message.as_bytes()) };
        }
    }

    /// Writes a message of level `alert`.
    pub fn alert(self, message: impl fmt::Display) {
        self.write(Level::Alert, message);
    }

    /// Writes a message of level `warn`.
    pub fn warn(self, message: impl fmt::Display) {
        self.write(Level::Warn, message);
    }

    /// Writes a message of level `notice`.
    pub fn notice(self, message: impl fmt::Display) {
        self.write(Level::Notice, message);
    }
}

/// The text with its control characters, and those that turn the direction of writing, as `\xHH`: for a line that a
/// terminal is to show.
pub fn escaped(text: &str) -> Cow<'_, str> {
    if !text.chars().any(is_special) {
        return Cow::Borrowed(text);
    }
    let mut out = String::with_capacity(text.len());
    for character in text.chars() {
        if is_special(character) {
            for byte in character.encode_utf8(&mut [0; 4]).bytes() {
                // Writing to a String cannot fail.
                let _ = write!(out, "\\x{byte:02x}");
            }
        } else {
            out.push(character);
        }
    }
    Cow::Owned(out)
}

/// Whether a character could change what the line around it looks like.
fn is_special(character: char) -> bool {
    character.is_control()
        || matches!(character, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{2069}' | '\u{feff}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn control_characters_are_escaped_and_nothing_else() {
        let table = [
            ("plain \"text\", \u{e4}\u{4e2d}", "plain \"text\", \u{e4}\u{4e2d}"),
            ("two\nlines\r\n", "two\\x0alines\\x0d\\x0a"),
            ("\u{1b}[31m", "\\x1b[31m"),
            ("\u{9b}", "\\xc2\\x9b"),
            ("\u{202e}gnp", "\\xe2\\x80\\xaegnp"),
            ("", ""),
        ];
        for (text, wanted) in table {
            assert_eq!(escaped(text), wanted);
        }
    }
}
