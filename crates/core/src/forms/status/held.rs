//! Long replies keep what they are made of for as long as their clients read. All of them together may keep so much and no
//! more, or clients that do not read would take all memory of a worker.

use std::sync::atomic::{AtomicUsize, Ordering};

use crate::http::Pieces;

use super::super::error::{Kind, Refusal};

/// Most bytes that all long replies of a worker keep: enough for some three dozens with ten thousand servers each.
const MOST: usize = 128 << 20;

/// How many they keep.
static HELD: AtomicUsize = AtomicUsize::new(0);

/// The rest of a reply, which is counted.
pub struct Held<P> {
    /// The rest.
    rest: P,
    /// How many bytes it keeps.
    bytes: usize,
}

impl<P> Held<P> {
    /// Counts a reply. One is always allowed.
    ///
    /// # Errors
    ///
    /// All of them would keep too much.
    pub fn new(rest: P, bytes: usize) -> Result<Self, Refusal> {
        let others = HELD.fetch_add(bytes, Ordering::Relaxed);
        let held = Self { rest, bytes };
        if others > 0 && others.saturating_add(bytes) > MOST {
            let words = "too many long replies are being read slowly, try again";
            return Err(Refusal::new(Kind::Busy, words));
        }
        Ok(held)
    }
}

impl<P: Pieces> Pieces for Held<P> {
    fn next(&mut self, piece: &mut Vec<u8>) -> bool {
        self.rest.next(piece)
    }
}

impl<P> Drop for Held<P> {
    fn drop(&mut self) {
        HELD.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn replies_keep_so_much_together() {
        // Others that are tested meanwhile keep next to nothing.
        let take = || Held::new((), MOST / 5 * 2);
        let kept = [take(), take()];
        assert!(kept.iter().all(Result::is_ok));
        let refused = take().map(drop).unwrap_err();
        assert_eq!((refused.kind.status(), refused.kind.header()), (503, Some(("Retry-After", "1"))));
        drop(kept);
        assert!(take().is_ok());
    }
}
