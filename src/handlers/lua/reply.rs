//! The memory of a caller: what it is told, and what it says.

use std::ffi::c_int;
use std::slice;

use super::failure::{Failure, MORE, OK, REFUSED};

/// Where a caller wants its answer.
#[repr(C)]
pub struct Reply {
    /// Its memory.
    pub data: *mut u8,
    /// How many bytes of it there are.
    pub size: u32,
    /// How many bytes are written, or would be.
    pub len: u32,
    /// How many rows.
    pub count: u32,
}

/// A text in the memory of a reply: where it begins, and its length, in bytes.
#[repr(C)]
#[derive(Clone, Copy, Default)]
pub struct Part {
    /// Where it begins.
    at: u32,
    /// Its length.
    len: u32,
}

/// The memory of a reply, while it is written: what does not fit is counted and left out.
pub struct Space<'a> {
    /// What is told about it.
    reply: &'a mut Reply,
    /// Where the next text goes.
    end: usize,
}

/// The bytes of a caller; none for a null pointer.
///
/// # Safety
///
/// `data` is null or points to `len` bytes, which nobody changes for `'a`.
pub unsafe fn bytes<'a>(data: *const u8, len: usize) -> &'a [u8] {
    if data.is_null() || len == 0 {
        return &[];
    }
    // SAFETY: the duty of the caller.
    unsafe { slice::from_raw_parts(data, len) }
}

/// A structure that is given to a caller as it lies in memory.
///
/// # Safety
///
/// It is `repr(C)`, made of numbers, and has no gaps between them.
pub unsafe trait Row: Sized {
    /// Its bytes.
    fn bytes(&self) -> &[u8] {
        // SAFETY: by the duty of who says that it is a row, all of its bytes are written.
        unsafe { slice::from_raw_parts((&raw const *self).cast(), size_of::<Self>()) }
    }
}

impl<'a> Space<'a> {
    /// The memory of a reply.
    ///
    /// # Safety
    ///
    /// It has as much as it says for as long as the space is used.
    pub unsafe fn new(reply: &'a mut Reply) -> Self {
        // Whatever happens, the caller does not read what an earlier call has left.
        (reply.len, reply.count) = (0, 0);
        Self { reply, end: 0 }
    }

    /// Keeps room for so many bytes, in front of all texts.
    pub fn reserve(&mut self, bytes: usize) {
        self.end = self.end.saturating_add(bytes);
    }

    /// Writes a row into room that was kept for it.
    pub fn row(&mut self, at: usize, row: &impl Row) {
        self.put(at, row.bytes());
    }

    /// Writes a text behind all others.
    pub fn text(&mut self, text: impl AsRef<[u8]>) -> Part {
        let (at, text) = (self.end, text.as_ref());
        self.put(at, text);
        self.end = at.saturating_add(text.len());
        Part { at: number(at), len: number(text.len()) }
    }

    /// Says how many rows there are.
    pub fn set_count(&mut self, count: usize) {
        self.reply.count = number(count);
    }

    /// The end of an answer.
    pub fn close(self) -> c_int {
        self.reply.len = number(self.end);
        if self.end <= self.reply.size as usize { OK } else { MORE }
    }

    /// The end of an answer that is a refusal; what was written is overwritten.
    pub fn refuse(self, failure: &Failure) -> c_int {
        self.refuse_with(&format!("{} {}", failure.code, failure.text))
    }

    /// The same in these words.
    pub fn refuse_with(mut self, text: &str) -> c_int {
        let text = text.as_bytes();
        let text = text.get(..self.reply.size as usize).unwrap_or(text);
        (self.end, self.reply.count) = (0, 0);
        self.text(text);
        self.reply.len = number(self.end);
        REFUSED
    }

    /// Writes bytes, if all of them fit.
    fn put(&mut self, at: usize, bytes: &[u8]) {
        let fits = at.checked_add(bytes.len()).is_some_and(|end| end <= self.reply.size as usize);
        if fits && !bytes.is_empty() && !self.reply.data.is_null() {
            // SAFETY: by the duty of `new` the memory has these bytes, and it is the caller's, who waits.
            unsafe { self.reply.data.add(at).copy_from_nonoverlapping(bytes.as_ptr(), bytes.len()) };
        }
    }
}

/// A number for a caller; what does not fit is too much for any memory.
fn number(number: usize) -> u32 {
    u32::try_from(number).unwrap_or(u32::MAX)
}
