//! Parts of one large string, for the texts of thousands of servers: one piece of memory, and no copies.

use std::fmt;
use std::ops::{Deref, Range};
use std::rc::Rc;

/// A part of a string that several share.
#[derive(Clone)]
pub struct Text {
    /// The string.
    whole: Rc<str>,
    /// Which part of it.
    part: Range<usize>,
}

/// A large string that is handed out in parts.
pub struct SharedText {
    /// The string; empty if the bytes are not UTF-8.
    text: Rc<str>,
    /// The bytes that it was made of, if they are not.
    bytes: Vec<u8>,
}

impl SharedText {
    /// The string of these bytes.
    pub fn new(bytes: Vec<u8>) -> Self {
        match String::from_utf8(bytes) {
            Ok(text) => Self { text: text.into(), bytes: Vec::new() },
            Err(error) => Self { text: "".into(), bytes: error.into_bytes() },
        }
    }

    /// A part of it; bytes that are no UTF-8 are replaced.
    pub fn part(&self, part: &Range<usize>) -> Text {
        if self.text.get(part.clone()).is_some() {
            return Text { whole: Rc::clone(&self.text), part: part.clone() };
        }
        let bytes = if self.bytes.is_empty() { self.text.as_bytes() } else { &self.bytes };
        String::from_utf8_lossy(bytes.get(part.clone()).unwrap_or_default()).into_owned().into()
    }
}

impl Deref for Text {
    type Target = str;

    fn deref(&self) -> &str {
        self.whole.get(self.part.clone()).unwrap_or_default()
    }
}

impl From<String> for Text {
    fn from(text: String) -> Self {
        Self { part: 0..text.len(), whole: text.into() }
    }
}

impl From<&str> for Text {
    fn from(text: &str) -> Self {
        Self { part: 0..text.len(), whole: text.into() }
    }
}

impl From<&Text> for String {
    fn from(text: &Text) -> Self {
        (**text).to_owned()
    }
}

impl PartialEq for Text {
    fn eq(&self, other: &Self) -> bool {
        **self == **other
    }
}

impl Eq for Text {}

impl PartialEq<str> for Text {
    fn eq(&self, other: &str) -> bool {
        **self == *other
    }
}

impl PartialEq<Text> for String {
    fn eq(&self, other: &Text) -> bool {
        **self == **other
    }
}

impl PartialEq<&str> for Text {
    fn eq(&self, other: &&str) -> bool {
        **self == **other
    }
}

impl fmt::Display for Text {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self)
    }
}

impl fmt::Debug for Text {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&**self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_are_those_of_the_whole() {
        let whole = SharedText::new("äbc".into());
        let texts = [0..2, 2..3, 3..4, 0..4, 4..4].map(|part| whole.part(&part).to_string());
        assert_eq!(texts, ["ä", "b", "c", "äbc", ""]);
    }

    #[test]
    fn what_is_no_text_is_replaced() {
        let whole = SharedText::new(b"a\xffb\xc3\xa4".to_vec());
        let texts = [0..1, 0..3, 3..5, 3..4, 9..12].map(|part| whole.part(&part).to_string());
        assert_eq!(texts, ["a", "a\u{fffd}b", "ä", "\u{fffd}", ""]);
        // Each half of a character is none.
        assert_eq!(&*SharedText::new("ä".into()).part(&(0..1)), "\u{fffd}");
    }
}
