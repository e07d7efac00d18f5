//! Reading the body of a request, from memory or from the file that nginx put it into.

use nginx_sys::{ngx_buf_t, ngx_chain_t, ngx_http_request_t, ngx_read_file, off_t, u_char};

use crate::http::BodyError;

/// Most bytes that are taken out of nginx's buffers in one slice of work: a millisecond's worth, if they are in a file.
const PIECE: usize = 1 << 20;

/// A body that is taken out of nginx's buffers, piece by piece.
pub(super) struct Collector {
    /// The next buffer; null at the end.
    link: *mut ngx_chain_t,
    /// How much of it was taken, in bytes.
    taken: usize,
    /// What was taken of all.
    body: Vec<u8>,
    /// How long it says that it is; 0 if it does not say so.
    expected: usize,
    /// Most bytes of all.
    limit: usize,
}

impl Collector {
    /// Begins.
    ///
    /// # Safety
    ///
    /// `r` must be a request whose body was read; it outlives this.
    pub(super) unsafe fn new(r: *mut ngx_http_request_t, limit: usize) -> Self {
        // SAFETY: the body is null, or a structure in the request's pool whose chain ends with null.
        let (link, length) = unsafe {
            let link = (*r).request_body.as_ref().map_or(std::ptr::null_mut(), |body| body.bufs);
            (link, (*r).headers_in.content_length_n)
        };
        let expected = usize::try_from(length).unwrap_or(0).min(limit);
        Self { link, taken: 0, body: Vec::new(), expected, limit }
    }

    /// Takes a piece. The whole body, when that was the last.
    ///
    /// # Errors
    ///
    /// If there is more than the limit, or it cannot be read, or there is no memory for it.
    pub(super) fn step(&mut self) -> Result<Option<Vec<u8>>, BodyError> {
        let mut room = PIECE;
        let missing = self.expected.saturating_sub(self.body.len());
        self.body.try_reserve_exact(missing).map_err(|_| BodyError::NoMemory)?;
        loop {
            // SAFETY: links and their buffers are in the request's pool, by the duty of the caller of `new`.
            let present =
                unsafe { self.link.as_ref().and_then(|link| Some((link.buf.as_ref()?, link.next))) };
            let Some((buf, next)) = present else { return Ok(Some(std::mem::take(&mut self.body))) };
            let length = length(buf)?;
            if length.saturating_sub(self.taken) > self.limit.saturating_sub(self.body.len()) {
                return Err(BodyError::TooLarge);
            }
            let piece = length.saturating_sub(self.taken).min(room);
            // SAFETY: the buffer is one of the request's body, and has so much.
            unsafe { append(&mut self.body, buf, self.taken, piece)? };
            self.taken += piece;
            room -= piece;
            if self.taken < length {
                return Ok(None);
            }
            (self.link, self.taken) = (next, 0);
        }
    }
}

/// Whether a buffer is in memory.
fn in_memory(buf: &ngx_buf_t) -> bool {
    buf.temporary() != 0 || buf.memory() != 0 || buf.mmap() != 0
}

/// How many bytes are in a buffer.
fn length(buf: &ngx_buf_t) -> Result<usize, BodyError> {
    match (in_memory(buf), buf.in_file() != 0) {
        // Two addresses in one buffer, the second not before the first.
        (true, _) => Ok(buf.last.addr().saturating_sub(buf.pos.addr())),
        (false, true) => {
            usize::try_from(buf.file_last.saturating_sub(buf.file_pos)).map_err(|_| BodyError::Unreadable)
        }
        (false, false) => Ok(0),
    }
}

/// Appends `length` bytes of a buffer, from `from` on.
///
/// # Safety
///
/// `buf` must be a buffer of a body that was read, with so many bytes.
unsafe fn append(body: &mut Vec<u8>, buf: &ngx_buf_t, from: usize, length: usize) -> Result<(), BodyError> {
    if length == 0 {
        return Ok(());
    }
    body.try_reserve(length).map_err(|_| BodyError::NoMemory)?;
    if in_memory(buf) {
        // SAFETY: between `pos` and `last` there are bytes that nginx received, in the request's pool.
        body.extend_from_slice(unsafe { std::slice::from_raw_parts(buf.pos.add(from), length) });
        return Ok(());
    }
    let start = body.len();
    body.resize(start.saturating_add(length), 0);
    let piece = body.get_mut(start..).ok_or(BodyError::Unreadable)?;
    let from = off_t::try_from(from).map_err(|_| BodyError::Unreadable)?;
    // SAFETY: the buffer says that it is in a file, which nginx keeps open for as long as the request lives.
    unsafe { read_file(buf, buf.file_pos.saturating_add(from), piece) }
}

/// Fills `piece` with what a buffer has in its file at an offset. This blocks; the length is bounded by the caller.
///
/// # Safety
///
/// `buf` must be in an open file.
unsafe fn read_file(buf: &ngx_buf_t, mut offset: off_t, piece: &mut [u8]) -> Result<(), BodyError> {
    let mut rest = piece;
    while !rest.is_empty() {
        let place: *mut u_char = rest.as_mut_ptr();
        // SAFETY: the file is open by the duty of the caller, and `place` has room for as many bytes.
        let read = unsafe { ngx_read_file(buf.file, place, rest.len(), offset) };
        // 0 is an end of file that comes too early, -1 an error that nginx logged.
        let read = usize::try_from(read).ok().filter(|read| *read > 0).ok_or(BodyError::Unreadable)?;
        offset = offset.saturating_add(off_t::try_from(read).map_err(|_| BodyError::Unreadable)?);
        rest = rest.get_mut(read..).ok_or(BodyError::Unreadable)?;
    }
    Ok(())
}
