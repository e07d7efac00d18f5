//! Writing a status piece by piece, from snapshots that were taken before the first of them.

use crate::http::Pieces;
use crate::model::snapshot::Peer;

use super::super::respond::Answer;
use super::listing::Listing;

/// Bytes after which a piece ends. A peer is written whole, for which there is room up to 64k.
const PIECE: usize = 60_000;

/// A form of the status. Each method adds a bit to a piece: no more than a peer has, or an upstream without its peers.
pub trait Form {
    /// The reply with this body, or the beginning of it.
    fn answer(body: Vec<u8>) -> Answer;

    /// Called before the upstreams are gone through. If it returns true they are, from the first to the last, and then
    /// it is called again; if false, that was all.
    fn pass(&mut self, out: &mut Vec<u8>, listings: &[Listing]) -> bool;

    /// Before the peers of an upstream. `place` counts upstreams from 0.
    fn head(&mut self, _out: &mut Vec<u8>, _listing: &Listing, _place: usize) {}

    /// One of its peers. `place` counts those that are shown from 0.
    fn peer(&mut self, out: &mut Vec<u8>, listing: &Listing, peer: &Peer, place: usize);

    /// After them.
    fn tail(&mut self, _out: &mut Vec<u8>, _listing: &Listing) {}
}

/// A status that is being written.
pub struct Writer<F> {
    /// How.
    form: F,
    /// What.
    listings: Vec<Listing>,
    /// Bytes after which a piece ends.
    piece: usize,
    /// Place of the present upstream; none between two passes.
    upstream: Option<usize>,
    /// Place of its peer that is next; none before its head.
    peer: Option<usize>,
}

impl<F: Form> Writer<F> {
    /// The status of these upstreams.
    pub fn new(form: F, listings: Vec<Listing>) -> Self {
        Self { form, listings, piece: PIECE, upstream: None, peer: None }
    }

    /// Writes the next bit. False if there is none.
    fn step(&mut self, out: &mut Vec<u8>) -> bool {
        let Self { form, listings, .. } = self;
        let Some(place) = self.upstream else {
            self.upstream = Some(0);
            return form.pass(out, listings);
        };
        let Some(listing) = listings.get(place) else {
            self.upstream = None;
            return true;
        };
        self.peer = match self.peer {
            None => {
                form.head(out, listing, place);
                Some(0)
            }
            Some(at) => match listing.snapshot.peers.get(at) {
                Some(peer) => {
                    form.peer(out, listing, peer, at);
                    at.checked_add(1)
                }
                None => {
                    form.tail(out, listing);
                    self.upstream = place.checked_add(1);
                    None
                }
            },
        };
        true
    }
}

impl<F: Form> Pieces for Writer<F> {
    fn next(&mut self, piece: &mut Vec<u8>) -> bool {
        while piece.len() < self.piece {
            if !self.step(piece) {
                return false;
            }
        }
        true
    }
}

/// A whole status, for tests of the forms: put together of pieces of one byte and more.
#[cfg(test)]
pub fn whole<F: Form + Clone>(form: &F, listings: impl Fn() -> Vec<Listing>) -> String {
    let sized = |size| {
        let mut writer = Writer { piece: size, ..Writer::new(form.clone(), listings()) };
        let (mut all, mut piece) = (Vec::new(), Vec::new());
        while writer.next(&mut piece) {
            assert!(piece.len() >= size, "a piece that is not the last has its size");
            all.append(&mut piece);
        }
        all.append(&mut piece);
        String::from_utf8(all).unwrap()
    };
    let whole = sized(usize::MAX);
    for size in (1..100).chain([1_000, PIECE, whole.len(), whole.len() + 1]) {
        assert_eq!(sized(size), whole, "pieces of {size} bytes");
    }
    whole
}
