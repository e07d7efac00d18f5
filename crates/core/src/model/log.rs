//! Lines for a log.

use std::borrow::Cow;
use std::fmt::Write;

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

/// A number of things: `1 server`, `2 servers`.
pub fn plural(number: usize, thing: &str) -> String {
    format!("{number} {thing}{}", if number == 1 { "" } else { "s" })
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
