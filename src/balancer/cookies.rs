//! The cookies that sticky sets while it chooses peers.

use nginx_sys::{ngx_http_request_t, ngx_list_part_t, ngx_table_elt_t};

use crate::nginx::conf;

/// The place in a request's headers from which on sticky may have set cookies while it chose peers.
#[derive(Clone, Copy)]
pub(super) struct Cookies {
    /// The last part of the list then.
    part: *mut ngx_list_part_t,
    /// How many headers it had.
    count: usize,
}

impl Cookies {
    /// The end of the headers as they are now.
    ///
    /// # Safety
    ///
    /// The request lives.
    pub unsafe fn from_here(r: *mut ngx_http_request_t) -> Self {
        // SAFETY: see above; nginx makes the list with the request.
        unsafe {
            let part = (*r).headers_out.headers.last;
            Self { part, count: part.as_ref().map_or(0, |part| part.nelts) }
        }
    }

    /// Withdraws the cookies that were set since: nginx does not send headers whose hash is 0. Until a peer has answered
    /// nothing but sticky sets any.
    pub unsafe fn withdraw(&self) {
        // SAFETY: see `from_here`; parts of a list stay where they are.
        unsafe {
            let (mut part, mut from) = (self.part, self.count);
            while let Some(present) = part.as_ref() {
                let headers = present.elts.cast::<ngx_table_elt_t>();
                for at in from..present.nelts {
                    let header = headers.add(at);
                    if conf::bytes(&(*header).key).eq_ignore_ascii_case(b"set-cookie") {
                        (*header).hash = 0;
                    }
                }
                (part, from) = (present.next, 0);
            }
        }
    }
}
