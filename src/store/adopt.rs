//! Which record is whose: the servers of a new configuration, or of lists that nginx changed by itself, take the
//! records, and so the ids, of those they are the same as.

use std::ptr::{self, NonNull};
use std::sync::atomic::{Ordering, fence};

use crate::model::id::Group;
use crate::model::server::Terms;

use super::death;
use super::index::Key;
use super::lock::Locked;
use super::lost::{Losses, What};
use super::memory::Full;
use super::records::{Server, StoredTerms, UNKNOWN, Upstream, Wish};

/// Generation of a store that was closed.
const CLOSED: u64 = u64::MAX;

/// A live peer that wants a record.
#[derive(Clone, Copy)]
pub struct Claim<'a> {
    /// Which list it is in.
    pub group: Group,
    /// Text of the `server` directive.
    pub server: &'a [u8],
    /// Address.
    pub name: &'a [u8],
    /// What it is now.
    pub terms: Terms,
    /// Whether nginx makes and removes it as a name resolves.
    pub managed: bool,
}

/// Room for the answers to claims, made before the lock is taken.
pub struct Claimed {
    /// The record of each claim.
    records: Vec<*mut Server>,
    /// What was lost.
    losses: Losses,
}

impl Claimed {
    /// Room for this many.
    pub fn with_room(claims: usize) -> Self {
        Self { records: vec![ptr::null_mut(); claims], losses: Losses::default() }
    }

    /// The servers that lost what was wanted of them at run time.
    pub fn losses(&self) -> &Losses {
        &self.losses
    }
}

/// What becomes of wishes when records are claimed anew.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Wishes {
    /// A new configuration: its word counts, and a server keeps its id when its address changed.
    Dropped,
    /// The same configuration: nginx resolved a name again.
    Kept,
}

impl Server {
    /// Whether nobody has taken it, and it is of the claim's list and text, and of its address if that is asked for.
    fn suits(&self, claim: &Claim<'_>, same_address: bool) -> bool {
        self.taken.get() == 0
            && self.group() == claim.group
            && self.server() == claim.server
            && (!same_address || self.name() == claim.name)
    }
}

impl Locked {
    /// Counts a new configuration, whose upstreams are adopted next. Returns its number, from 1.
    ///
    /// It has no use for reasons. They go before anything is made for it, so that a zone that is full of what came at
    /// run time has room for what the file has.
    pub fn begin_generation(&mut self) -> u64 {
        let mut upstream = self.header().upstreams;
        while let Some(present) = NonNull::new(upstream) {
            // SAFETY: the lock is held. Records of upstreams are never freed, and each server that is followed is
            // linked in its list.
            unsafe {
                let mut server = (*present.as_ptr()).servers;
                while !server.is_null() {
                    self.free_reasons(server);
                    server = (*server).next;
                }
                upstream = (*present.as_ptr()).next;
            }
        }
        let header = self.header();
        header.generation = header.generation.wrapping_add(1);
        header.generation
    }

    /// Closes the store: the configuration that starts goes on with another.
    pub fn close(&mut self) {
        self.header().generation = CLOSED;
    }

    /// Whether the store was closed.
    pub fn is_closed(&mut self) -> bool {
        self.header().generation == CLOSED
    }

    /// The record of the upstream with this name; a new one if there is none.
    ///
    /// # Errors
    ///
    /// The zone is full; nothing was changed.
    pub fn upstream(&mut self, name: &[u8]) -> Result<NonNull<Upstream>, Full> {
        if let Some(found) = self.find(name) {
            return Ok(found);
        }
        let text = self.alloc_text(name)?;
        let record = match self.alloc::<Upstream>() {
            Ok(record) => record,
            Err(full) => {
                // SAFETY: the text was made above, and nothing refers to it.
                unsafe { self.free(text.data) };
                return Err(full);
            }
        };
        // SAFETY: the record was made above: zeroes, which is a record without servers. It is linked when it is whole.
        unsafe {
            (*record).name = text;
            (*record).indexed = UNKNOWN;
            (*record).next = self.header().upstreams;
        }
        self.header().upstreams = record;
        NonNull::new(record).ok_or(Full { needed: size_of::<Upstream>() })
    }

    /// Gives each claim a record: that of the same server, else a new one. Records that nobody claims are freed.
    /// The servers that lost what was wanted of them at run time are noted in `claimed`.
    ///
    /// # Errors
    ///
    /// The zone is full; nothing was changed.
    pub fn claim(
        &mut self,
        upstream: NonNull<Upstream>,
        generation: u64,
        membership: u64,
        claims: &[Claim<'_>],
        claimed: &mut Claimed,
        wishes: Wishes,
    ) -> Result<(), Full> {
        let upstream = upstream.as_ptr();
        // SAFETY: the lock is held for the whole function: the records of this upstream are reached by nobody else,
        // and each one that is followed is linked in its list, or was made here.
        unsafe {
            let mut next_id = (*upstream).next_id;
            if let Err(full) = self.answer(upstream, &mut next_id, claims, claimed, wishes) {
                let records = claimed.records.iter();
                for &server in records.filter(|server| !server.is_null() && (***server).taken.get() == 0) {
                    self.free_server(server);
                }
                return Err(full);
            }
            let written = self.begin_writing(upstream);
            // Before any record with a new id is linked: an id is not given again when this writer dies.
            (*upstream).next_id = next_id;
            (*upstream).indexed = UNKNOWN;
            let mut is_other = false;
            if wishes == Wishes::Dropped {
                self.lose(upstream, claims, claimed);
                self.reset(claims, claimed);
                is_other = claimed.losses.count() > 0 || (*upstream).moves > 0;
                (*upstream).moves = 0;
            }
            self.relink(upstream, claimed, wishes);
            death::may_come();
            self.rebuild(upstream);
            (*upstream).generation = generation;
            (*upstream).membership.store(membership, Ordering::Release);
            if is_other {
                *(*upstream).revision.get_mut() += 1;
            }
            self.end_writing(written);
            self.make_room(NonNull::new_unchecked(upstream), 0);
            Ok(())
        }
    }

    /// Finds or makes the record of each claim. Records that were there are marked as taken, new ones are not.
    ///
    /// # Safety
    ///
    /// See [`Locked::claim`], the only caller of this and of the functions below.
    unsafe fn answer(
        &mut self,
        upstream: *mut Upstream,
        next_id: &mut u64,
        claims: &[Claim<'_>],
        claimed: &mut Claimed,
        wishes: Wishes,
    ) -> Result<(), Full> {
        claimed.records.fill(ptr::null_mut());
        // SAFETY: see above.
        unsafe {
            let first = (*upstream).servers;
            let mut server = first;
            while !server.is_null() {
                (*server).taken.set(0);
                server = (*server).next;
            }

            // Records are in the order of the peers, so the one after the last match is nearly always the right one.
            let mut after = first;
            for (claim, held) in claims.iter().zip(&mut claimed.records) {
                let server = match after.as_ref().filter(|server| server.suits(claim, true)) {
                    Some(_) => after,
                    None => self.find_free(upstream, claim, true),
                };
                if !server.is_null() {
                    (*server).taken.set(1);
                    after = (*server).next;
                    *held = server;
                }
            }

            for (claim, held) in claims.iter().zip(&mut claimed.records).filter(|(_, held)| held.is_null()) {
                if wishes == Wishes::Kept && !claim.managed {
                    // Not nginx's doing, but a change that this process has yet to catch up with.
                    continue;
                }
                let server = self.new_server(claim)?;
                *held = server;
                let ancestor = match wishes {
                    Wishes::Dropped => self.find_free(upstream, claim, false),
                    Wishes::Kept => ptr::null_mut(),
                };
                if ancestor.is_null() {
                    (*server).id = *next_id;
                    *next_id += 1;
                } else {
                    (*ancestor).taken.set(2);
                    (*server).id = (*ancestor).id;
                }
            }
        }
        Ok(())
    }

    /// The first record that nobody has taken, of the claim's list and text, and of its address if that is asked for;
    /// else null.
    unsafe fn find_free(
        &self,
        upstream: *mut Upstream,
        claim: &Claim<'_>,
        same_address: bool,
    ) -> *mut Server {
        let key = if same_address { Key::Name(claim.name) } else { Key::Text(claim.server) };
        // SAFETY: see `answer`.
        let upstream = unsafe { NonNull::new_unchecked(upstream) };
        let found = self.candidates(upstream, key).find(|server| server.suits(claim, same_address));
        found.map_or(ptr::null_mut(), |server| ptr::from_ref(server).cast_mut())
    }

    /// A record for a claim, linked nowhere, without an id.
    pub(super) fn new_server(&mut self, claim: &Claim<'_>) -> Result<*mut Server, Full> {
        let record = self.alloc::<Server>()?;
        let (server, name) = (claim.server, claim.name);
        let needed = server.len().saturating_add(name.len());
        // SAFETY: the record was made here, of zeroes, and the chunk is as long as both texts; nobody else knows them.
        unsafe {
            let texts = self.alloc_bytes(needed.max(1)).cast::<u8>();
            let (Ok(server_len), Ok(name_len), false) =
                (u32::try_from(server.len()), u32::try_from(name.len()), texts.is_null())
            else {
                self.free(texts);
                self.free(record);
                return Err(Full { needed });
            };
            texts.copy_from_nonoverlapping(server.as_ptr(), server.len());
            texts.add(server.len()).copy_from_nonoverlapping(name.as_ptr(), name.len());
            let base = StoredTerms::from(claim.terms);
            (*record).texts = texts;
            (*record).server_len = server_len;
            (*record).name_len = name_len;
            (*record).backup = u8::from(claim.group.is_backup());
            (*record).managed = u8::from(claim.managed);
            (*record).base = base;
            (*record).wishes = [Wish::of_configuration(base); 2];
            Ok(record)
        }
    }

    /// Notes what servers lose when the configuration counts again.
    ///
    /// What is lost with a server that the configuration does not have any more is no news; but one that was added at run
    /// time never was in it, and one whose address the configuration knows better goes on under its id.
    unsafe fn lose(&self, upstream: *mut Upstream, claims: &[Claim<'_>], claimed: &mut Claimed) {
        // SAFETY: see `answer`. Records are only read.
        unsafe {
            let upstream = &*upstream;
            let revision = upstream.revision.load(Ordering::Relaxed);
            let name = self.text(&upstream.name);
            let Claimed { records, losses } = claimed;
            for (claim, &server) in claims.iter().zip(&*records) {
                if (*server).taken.get() == 1 {
                    losses.note_wish(name, &*server, revision, claim.terms.into());
                } else if upstream.let_go(claim.name) {
                    losses.note(name, claim.server, What::Removed);
                }
            }
            let mut server = upstream.servers.cast_const();
            while let Some(record) = server.as_ref() {
                match record.taken.get() {
                    0 if record.born > 0 => losses.note_record(name, record, revision),
                    2 => losses.note_wish(name, record, revision, record.base),
                    _ => {}
                }
                server = record.next;
            }
        }
    }

    /// Takes what the configuration says for what is wanted.
    unsafe fn reset(&mut self, claims: &[Claim<'_>], claimed: &Claimed) {
        for (claim, &server) in claims.iter().zip(&claimed.records) {
            // SAFETY: see `answer`.
            unsafe {
                let base = StoredTerms::from(claim.terms);
                self.free_reasons(server);
                (*server).base = base;
                (*server).wishes = [Wish::of_configuration(base); 2];
                (*server).managed = u8::from(claim.managed);
                (*server).born = 0;
                (*server).gone = 0;
            }
        }
    }

    /// Links the claimed records and frees the others. The list is whole after each store: a worker that dies in here
    /// loses memory, and no record.
    ///
    /// Of a configuration that goes on those stay, too, that were changed by hand: a process that has not caught up yet
    /// waits for them, or nginx makes their peers again when the name resolves to them again. New primaries stand before
    /// the backups, as their peers do.
    unsafe fn relink(&mut self, upstream: *mut Upstream, claimed: &Claimed, wishes: Wishes) {
        // SAFETY: see `answer`.
        unsafe {
            let mut link = &raw mut (*upstream).servers;
            let mut end_of_primaries = link;
            while let Some(server) = NonNull::new(*link) {
                let record = server.as_ref();
                let changed = record.managed == 0 || record.wishes.iter().any(|wish| wish.revision > 0);
                if record.taken.get() == 1 || (wishes == Wishes::Kept && changed) {
                    link = &raw mut (*server.as_ptr()).next;
                    if record.backup == 0 {
                        end_of_primaries = link;
                    }
                } else {
                    *link = record.next;
                    fence(Ordering::SeqCst);
                    death::may_come();
                    self.free_server(server.as_ptr());
                }
            }
            let mut end = link;
            for &server in claimed.records.iter().filter(|server| !server.is_null()) {
                if (*server).taken.get() == 0 {
                    let link = if (*server).backup == 0 { end_of_primaries } else { end };
                    (*server).next = *link;
                    fence(Ordering::SeqCst);
                    *link = server;
                    death::may_come();
                    let next = &raw mut (*server).next;
                    if link == end {
                        end = next;
                    }
                    if (*server).backup == 0 {
                        end_of_primaries = next;
                    }
                }
            }
            if wishes == Wishes::Dropped {
                // The order of the peers, for a look-up that finds each record after the one before. The master does
                // this, and when it dies nothing goes on.
                let mut link = &raw mut (*upstream).servers;
                for &server in claimed.records.iter().filter(|server| !server.is_null()) {
                    *link = server;
                    link = &raw mut (*server).next;
                }
                *link = ptr::null_mut();
            }
        }
    }

    /// Frees the reasons of a server.
    unsafe fn free_reasons(&mut self, server: *mut Server) {
        // SAFETY: see `answer`. Whoever dies after the first store has lost memory, and no more.
        unsafe {
            let reasons = std::mem::replace(&mut (*server).reasons, ptr::null_mut());
            fence(Ordering::SeqCst);
            self.free(reasons);
        }
    }

    /// Frees a record that is linked nowhere.
    pub(super) unsafe fn free_server(&mut self, server: *mut Server) {
        // SAFETY: see `answer`.
        unsafe {
            self.free_reasons(server);
            self.free((*server).texts);
            self.free(server);
        }
    }

    /// Frees the servers of upstreams that the configuration does not have any more. Calls `forgotten` with the name of
    /// each that had some, and with what they lose; it must not allocate.
    pub fn forget_others(&mut self, generation: u64, mut forgotten: impl FnMut(&[u8], &Losses)) {
        let mut upstream = self.header().upstreams;
        while !upstream.is_null() {
            // SAFETY: the lock is held, and records of upstreams are never freed.
            unsafe {
                if (*upstream).generation != generation && !(*upstream).servers.is_null() {
                    let mut losses = Losses::default();
                    self.lost(&*upstream, &mut losses);
                    forgotten(self.text(&(*upstream).name), &losses);
                    let mut server = (*upstream).servers;
                    self.forget(upstream);
                    while !server.is_null() {
                        let next = (*server).next;
                        self.free_server(server);
                        server = next;
                    }
                }
                upstream = (*upstream).next;
            }
        }
    }
}
