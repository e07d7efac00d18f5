//! Where the servers of an upstream are found by what they are called, at the same cost among ten and among ten
//! thousand.
//!
//! Each server is in three chains: those of its address, of its text and of its id. In a chain servers of the same name
//! stand in the order of the list, those that came since the last adoption last. An upstream of a few servers, or one for
//! whose index there was no room, has its list for the only chain.

use std::marker::PhantomData;
use std::ptr::{self, NonNull};
use std::sync::atomic::{Ordering, fence};

use super::death;
use super::lock::Locked;
use super::records::{Chains, Index, Server, Upstream};

/// Servers for which there is no index: to walk over so few takes no longer than to compute where to look, and a zone
/// may be small.
pub(super) const FEW: u64 = 16;

/// Chains of each kind for a few more: as many as fit a chunk of the size that servers have.
const CHAINS_MIN: u64 = 8;

/// Servers for which these do.
pub(super) const SOME: u64 = 4 * CHAINS_MIN;

/// How many chains so many servers should have.
fn chains_for(servers: u64) -> Option<u64> {
    if servers <= FEW {
        None
    } else if servers <= SOME {
        Some(CHAINS_MIN)
    } else {
        Some(servers.next_power_of_two())
    }
}

/// Bytes of an index of so many chains of each kind.
fn size_of_index(chains: u64) -> usize {
    size_of::<Index>() + size_of::<Chains>() * chains as usize
}

/// Bytes of the index of so many servers; 0 for few.
pub(super) fn index_size(servers: u64) -> usize {
    chains_for(servers).map_or(0, size_of_index)
}

/// What servers are found by.
#[derive(Clone, Copy)]
pub(super) enum Key<'a> {
    /// Address; upper and lower case are not told apart.
    Name(&'a [u8]),
    /// Text of the `server` directive, likewise.
    Text(&'a [u8]),
    /// Identity.
    Id(u64),
}

/// Kinds of chains.
#[derive(Clone, Copy)]
enum Kind {
    /// By address.
    Name,
    /// By text.
    Text,
    /// By id.
    Id,
}

impl Kind {
    /// Where a chain of this kind goes on.
    ///
    /// # Safety
    ///
    /// `chains` is part of a server or of an index, under the lock.
    unsafe fn link(self, chains: *mut Chains) -> *mut *mut Server {
        // SAFETY: see above; only an address is taken.
        unsafe {
            match self {
                Self::Name => &raw mut (*chains).name,
                Self::Text => &raw mut (*chains).text,
                Self::Id => &raw mut (*chains).id,
            }
        }
    }
}

impl Key<'_> {
    /// A number that servers with the same key share. A later build of the module finds its servers by it in chains that
    /// an earlier one made: whoever changes it raises the number in [`MAGIC`](super::records::MAGIC).
    pub(super) fn hash(&self) -> u64 {
        match self {
            Self::Name(bytes) | Self::Text(bytes) => {
                // FNV-1a, and the upper half mixed into the lower one, which chooses the chain.
                let hash = bytes.iter().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
                    (hash ^ u64::from(byte.to_ascii_lowercase())).wrapping_mul(0x100_0000_01b3)
                });
                hash ^ (hash >> 32)
            }
            Self::Id(id) => *id,
        }
    }

    /// The kind of its chain.
    fn kind(&self) -> Kind {
        match self {
            Self::Name(_) => Kind::Name,
            Self::Text(_) => Kind::Text,
            Self::Id(_) => Kind::Id,
        }
    }
}

/// The servers of one chain.
pub(super) struct Candidates<'a> {
    /// The next one.
    at: *mut Server,
    /// The kind of the chain; none for the list.
    kind: Option<Kind>,
    /// The lock that keeps the servers.
    locked: PhantomData<&'a Locked>,
}

impl<'a> Iterator for Candidates<'a> {
    type Item = &'a Server;

    fn next(&mut self) -> Option<&'a Server> {
        let server = NonNull::new(self.at)?;
        // SAFETY: the lock is held for 'a, so that linked records stay as they are.
        unsafe {
            self.at = match self.kind {
                Some(kind) => *kind.link(&raw mut (*server.as_ptr()).chains),
                None => (*server.as_ptr()).next,
            };
            Some(server.as_ref())
        }
    }
}

impl Locked {
    /// The servers among which all with this key are.
    pub(super) fn candidates(&self, upstream: NonNull<Upstream>, key: Key<'_>) -> Candidates<'_> {
        // SAFETY: records of upstreams are never freed; the lock is held.
        let (at, kind) = unsafe {
            match self.chain(upstream.as_ptr(), key) {
                Some(link) => (*link, Some(key.kind())),
                None => ((*upstream.as_ptr()).servers, None),
            }
        };
        Candidates { at, kind, locked: PhantomData }
    }

    /// The beginning of a chain; none without an index.
    ///
    /// # Safety
    ///
    /// `upstream` is a record; the lock is held.
    unsafe fn chain(&self, upstream: *mut Upstream, key: Key<'_>) -> Option<*mut *mut Server> {
        // SAFETY: see above; an index has as many beginnings as its mask says, and one.
        unsafe {
            let index = NonNull::new((*upstream).index)?;
            let place = (key.hash() & index.as_ref().mask) as usize;
            Some(key.kind().link(index.as_ptr().add(1).cast::<Chains>().add(place)))
        }
    }

    /// The keys of a server.
    ///
    /// # Safety
    ///
    /// The server is whole; the lock is held for as long as the keys are used.
    unsafe fn keys<'a>(&self, server: *mut Server) -> [Key<'a>; 3] {
        // SAFETY: see above.
        let server: &'a Server = unsafe { &*server };
        [Key::Name(server.name()), Key::Text(server.server()), Key::Id(server.id)]
    }

    /// Puts a server at the end of the list of its group, or behind the one whose place it takes, and into the chains.
    ///
    /// # Safety
    ///
    /// `upstream` is marked as being written. The server is whole and linked nowhere; `heir_of` is linked.
    pub(super) unsafe fn insert(
        &mut self,
        upstream: *mut Upstream,
        server: *mut Server,
        heir_of: Option<NonNull<Server>>,
    ) {
        // SAFETY: see above.
        unsafe {
            let [primaries, backups] = (*upstream).last;
            let before = match heir_of {
                Some(server) => server.as_ptr(),
                None if (*server).backup != 0 && !backups.is_null() => backups,
                None => primaries,
            };
            let link = if before.is_null() { &raw mut (*upstream).servers } else { &raw mut (*before).next };
            (*server).next = *link;
            (*server).prev = before;
            fence(Ordering::SeqCst);
            death::may_come();
            *link = server;
            death::may_come();
            if let Some(next) = (*server).next.as_mut() {
                next.prev = server;
            }
            let [primaries, backups] = &mut (*upstream).last;
            let last = if (*server).backup == 0 { primaries } else { backups };
            if last.is_null() || *last == before {
                *last = server;
            }
            (*upstream).count += 1;
            death::may_come();
            for key in self.keys(server) {
                if let Some(mut link) = self.chain(upstream, key) {
                    while let Some(present) = (*link).as_mut() {
                        link = key.kind().link(&raw mut present.chains);
                    }
                    *link = server;
                    death::may_come();
                }
            }
        }
    }

    /// Takes a server out of the list and out of the chains, and frees it.
    ///
    /// # Safety
    ///
    /// `upstream` is marked as being written; the server is linked, and nobody asks for it any more.
    pub(super) unsafe fn remove(&mut self, upstream: *mut Upstream, server: *mut Server) {
        // SAFETY: see above.
        unsafe {
            for key in self.keys(server) {
                let Some(mut link) = self.chain(upstream, key) else { continue };
                while let Some(present) = NonNull::new(*link) {
                    let next = key.kind().link(&raw mut (*present.as_ptr()).chains);
                    if present.as_ptr() == server {
                        *link = *next;
                        death::may_come();
                        break;
                    }
                    link = next;
                }
            }
            let (prev, next) = ((*server).prev, (*server).next);
            let link = if prev.is_null() { &raw mut (*upstream).servers } else { &raw mut (*prev).next };
            *link = next;
            fence(Ordering::SeqCst);
            death::may_come();
            if let Some(next) = next.as_mut() {
                next.prev = prev;
            }
            // No primary stands behind a backup: without one of its group right before it, it was the first.
            let of_same_list = prev.as_ref().filter(|prev| prev.backup == (*server).backup);
            let prev = of_same_list.map_or(ptr::null_mut(), |_| prev);
            for last in &mut (*upstream).last {
                if *last == server {
                    *last = prev;
                }
            }
            (*upstream).count -= 1;
            death::may_come();
            self.free_server(server);
            death::may_come();
        }
    }

    /// Makes all that leads to servers anew, from the list.
    ///
    /// # Safety
    ///
    /// `upstream` is marked as being written, or known to nobody else.
    pub(super) unsafe fn rebuild(&mut self, upstream: *mut Upstream) {
        // SAFETY: see above; the list is whole, and the index as long as its mask says.
        unsafe {
            let (mut last, mut count) = ([ptr::null_mut(); 2], 0);
            let mut prev: *mut Server = ptr::null_mut();
            let mut server = (*upstream).servers;
            while let Some(present) = server.as_mut() {
                present.prev = prev;
                let [primaries, backups] = &mut last;
                *(if present.backup == 0 { primaries } else { backups }) = server;
                count += 1;
                prev = server;
                server = present.next;
            }
            (*upstream).last = last;
            (*upstream).count = count;

            let Some(index) = (*upstream).index.as_ref() else { return };
            let beginnings = (*upstream).index.add(1).cast::<Chains>();
            beginnings.write_bytes(0, index.mask as usize + 1);
            // From the end, so that what comes first stands first.
            while !prev.is_null() {
                for key in self.keys(prev) {
                    if let Some(link) = self.chain(upstream, key) {
                        *key.kind().link(&raw mut (*prev).chains) = *link;
                        *link = prev;
                        death::may_come();
                    }
                }
                prev = (*prev).prev;
            }
        }
    }

    /// Makes the index larger if `more` servers are too many for it. Without room for that it stays as it is, which
    /// costs time and nothing else.
    pub(super) fn make_room(&mut self, upstream: NonNull<Upstream>, more: u64) {
        let upstream = upstream.as_ptr();
        // SAFETY: records of upstreams are never freed; the lock is held. Whoever finds the index half-filled makes it
        // anew, since the upstream is marked as being written.
        unsafe {
            let Some(chains) = chains_for((*upstream).count + more) else { return };
            let present = (*upstream).index;
            if present.as_ref().is_some_and(|index| index.mask + 1 >= chains) {
                return;
            }
            let index = self.alloc_bytes(size_of_index(chains)).cast::<Index>();
            let Some(index) = NonNull::new(index) else { return };
            (*index.as_ptr()).mask = chains - 1;
            let written = self.begin_writing(upstream);
            (*upstream).index = index.as_ptr();
            fence(Ordering::SeqCst);
            death::may_come();
            self.free(present);
            self.rebuild(upstream);
            self.end_writing(written);
        }
    }

    /// Forgets all servers, which the caller frees.
    ///
    /// # Safety
    ///
    /// `upstream` is a record; nothing else goes on.
    pub(super) unsafe fn forget(&mut self, upstream: *mut Upstream) {
        // SAFETY: see above.
        unsafe {
            (*upstream).servers = ptr::null_mut();
            let index = std::mem::replace(&mut (*upstream).index, ptr::null_mut());
            fence(Ordering::SeqCst);
            self.free(index);
            self.rebuild(upstream);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_hash_is_the_one_that_the_magic_number_stands_for() {
        let hashes = [Key::Name(b"10.0.0.1:80"), Key::Text(b"Backend.Example"), Key::Text(b""), Key::Id(7)];
        assert_eq!(
            hashes.map(|key| key.hash()),
            [0x529f_5a4b_36a0_fc4e, 0xa652_3a8f_62a8_13fc, 0xcbf2_9ce4_4fd0_bfc1, 7],
            "if it is to change, raise the number in MAGIC"
        );
    }
}
