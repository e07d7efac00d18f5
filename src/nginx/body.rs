//! Reading the body of a request, from memory or from the file that nginx put it into.

use nginx_sys::{
    NGX_DONE, NGX_HTTP_SPECIAL_RESPONSE, ngx_buf_t, ngx_http_finalize_request,
    ngx_http_read_client_request_body, ngx_http_request_t, ngx_int_t, ngx_read_file, off_t, u_char,
};

use super::http::{Handler, Request, guarded, send};

/// Why there is no body to look at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BodyError {
    /// It is longer than [`Handler::BODY_LIMIT`].
    TooLarge,
    /// It could not be read from the file that nginx put it into.
    Unreadable,
}

/// Reads the body and answers by [`Handler::finish`], now or when the body has come; the content handler returns what
/// this returns. A body that says that it is too large is not read at all; one in chunks is found to be too large when
/// it is there, for which nginx's `client_max_body_size` is the bound.
///
/// # Safety
///
/// `r` must be the request that nginx is calling a content handler for.
pub(super) unsafe fn read<H: Handler>(r: *mut ngx_http_request_t) -> ngx_int_t {
    let limit = off_t::try_from(H::BODY_LIMIT).unwrap_or(off_t::MAX);
    // SAFETY: the request is valid by the duty of the caller.
    if unsafe { (*r).headers_in.content_length_n } > limit {
        // SAFETY: as above; `finish` sends the reply for this request.
        return unsafe { send(r, H::finish(&Request::new(r), Err(BodyError::TooLarge))) };
    }
    // SAFETY: as above. nginx counts one more user of the request, whom `ready` takes away by finalizing it.
    let code = unsafe { ngx_http_read_client_request_body(r, Some(ready::<H>)) };
    if code >= NGX_HTTP_SPECIAL_RESPONSE as ngx_int_t { code } else { NGX_DONE as ngx_int_t }
}

/// Called by nginx in the worker when the body is there: at once, or from a later event.
unsafe extern "C" fn ready<H: Handler>(r: *mut ngx_http_request_t) {
    // SAFETY: nginx calls with the request whose body it read, which lives until it is finalized.
    unsafe { ngx_http_finalize_request(r, guarded::<H>(r, || finish::<H>(r))) };
}

/// Answers a request whose body has come.
///
/// # Safety
///
/// `r` must be a request whose body was read.
unsafe fn finish<H: Handler>(r: *mut ngx_http_request_t) -> ngx_int_t {
    // SAFETY: the request is valid by the duty of the caller, and the buffers of its body are as nginx left them.
    let body = unsafe { collect(r, H::BODY_LIMIT) };
    // SAFETY: as above.
    let request = unsafe { Request::new(r) };
    let response = H::finish(&request, body.as_deref().map_err(|error| *error));
    // SAFETY: as above; nothing was sent before.
    unsafe { send(r, response) }
}

/// The whole body, if it is not longer than `limit`.
///
/// # Safety
///
/// `r` must be a request whose body was read.
unsafe fn collect(r: *mut ngx_http_request_t, limit: usize) -> Result<Vec<u8>, BodyError> {
    let mut body = Vec::new();
    // SAFETY: the body is null, or a structure in the request's pool whose chain ends with null.
    let mut link = unsafe { (*r).request_body.as_ref() }.map_or(std::ptr::null_mut(), |body| body.bufs);
    loop {
        // SAFETY: links and their buffers are in the request's pool.
        let present = unsafe { link.as_ref().and_then(|link| Some((link.buf.as_ref()?, link.next))) };
        let Some((buf, next)) = present else { break };
        // SAFETY: the buffer is one of the request's body.
        unsafe { append(&mut body, buf, limit)? };
        link = next;
    }
    Ok(body)
}

/// Appends what is in one buffer, unless the body gets longer than `limit` by it.
///
/// # Safety
///
/// `buf` must be a buffer of a body that was read.
unsafe fn append(body: &mut Vec<u8>, buf: &ngx_buf_t, limit: usize) -> Result<(), BodyError> {
    let in_memory = buf.temporary() != 0 || buf.memory() != 0 || buf.mmap() != 0;
    let length = match (in_memory, buf.in_file() != 0) {
        // Two addresses in one buffer, the second not before the first.
        (true, _) => buf.last.addr().saturating_sub(buf.pos.addr()),
        (false, true) => {
            usize::try_from(buf.file_last.saturating_sub(buf.file_pos)).map_err(|_| BodyError::Unreadable)?
        }
        (false, false) => 0,
    };
    if length > limit.saturating_sub(body.len()) {
        return Err(BodyError::TooLarge);
    }
    if length == 0 {
        return Ok(());
    }
    if in_memory {
        // SAFETY: between `pos` and `last` there are bytes that nginx received, in the request's pool.
        body.extend_from_slice(unsafe { std::slice::from_raw_parts(buf.pos, length) });
        return Ok(());
    }
    let mut piece = vec![0; length];
    // SAFETY: the buffer says that it is in a file, which nginx keeps open for as long as the request lives.
    unsafe { read_file(buf, &mut piece)? };
    body.append(&mut piece);
    Ok(())
}

/// Fills `piece` with the beginning of what a buffer has in its file. This blocks; the length is bounded by the caller.
///
/// # Safety
///
/// `buf` must be in an open file.
unsafe fn read_file(buf: &ngx_buf_t, piece: &mut [u8]) -> Result<(), BodyError> {
    let mut offset = buf.file_pos;
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
