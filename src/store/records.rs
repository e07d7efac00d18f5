//! The shape of what lies in the module's zone.

use std::cell::Cell;
use std::ffi::c_void;
use std::sync::atomic::AtomicU64;

use crate::model::client::Client;
use crate::model::departures::Departed;
use crate::model::id::Group;
use crate::model::params::Params;
use crate::model::server::Terms;
use crate::model::state::Admin;
use crate::ops::plan::NOTE_MAX;

use super::lease::{LEASES, Lease};

/// Longest client address that is kept, in bytes: an IPv6 address, or `unix:`.
pub const CLIENT_MAX: usize = 46;

/// Longest user that is kept, in bytes.
pub const USER_MAX: usize = 64;

/// First words of the zone.
#[repr(C)]
pub struct Header {
    /// [`MAGIC`].
    pub magic: u64,
    /// Counts configurations: the master adds one when it adopts a new one.
    pub generation: u64,
    /// The first upstream.
    pub upstreams: *mut Upstream,
    /// The upstream that is being written, so that a writer's death is noticed.
    pub writing: *mut Upstream,
    /// Who does which job.
    pub leases: [Lease; LEASES],
}

/// Says that the zone was set up by a module with these very structures: a version, mixed with their sizes. The version
/// is raised, too, when what is found by them changes though no size does, as with the hash of the index.
pub const MAGIC: u64 = 0x6e75_6300_0000_0002
    ^ ((size_of::<Header>() as u64) << 8)
    ^ ((size_of::<Upstream>() as u64) << 16)
    ^ ((size_of::<Server>() as u64) << 24)
    ^ ((size_of::<Reason>() as u64) << 32);

/// A string in the zone.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct Text {
    /// Its bytes.
    pub data: *mut u8,
    /// How many.
    pub len: usize,
}

/// An upstream. A record is never freed, so that its ids are not used again, and so that workers of an older
/// configuration may still look at it.
#[repr(C)]
pub struct Upstream {
    /// The next upstream.
    pub next: *mut Upstream,
    /// Name of the upstream.
    pub name: Text,
    /// Number of committed changes. Read without the lock, too, to see that something changed.
    pub revision: AtomicU64,
    /// Id of the next new server.
    pub next_id: u64,
    /// Configuration that it was last adopted by; 0 for none.
    pub generation: u64,
    /// nginx's count of changes to the lists that the servers were last compared with. Read without the lock, too.
    pub membership: AtomicU64,
    /// Servers that came, went or moved since the configuration was adopted.
    pub moves: u64,
    /// The first server: in the order of the peers, so that no primary stands behind a backup. This and each server's
    /// `next` are whole at every moment; all else that leads to servers is made anew from them when a writer died.
    pub servers: *mut Server,
    /// The last server of the primaries, and that of the backups; null for none.
    pub last: [*mut Server; 2],
    /// How many servers there are.
    pub count: u64,
    /// Finds servers by what they are called; null while there was no room for one.
    pub index: *mut Index,
    /// nginx's count of changes to the lists at which each server's `peer` was right; [`UNKNOWN`] for none.
    pub indexed: u64,
    /// Addresses of servers that were removed or moved, by the hash that the index has for them: a process of an older
    /// configuration lets its peers leave by them.
    pub departed: Departed<REMEMBERED>,
}

/// Where three chains go on: from a place of the index, or from a server. Zeroes are their end.
#[repr(C)]
pub struct Chains {
    /// That of an address.
    pub(super) name: *mut Server,
    /// That of a text.
    pub(super) text: *mut Server,
    /// That of an id.
    pub(super) id: *mut Server,
}

/// The beginnings of the chains follow this.
#[repr(C)]
pub struct Index {
    /// How many there are of each kind, less one: they are a power of two.
    pub(super) mask: u64,
}

/// Departures that are remembered. More than this, and the record would need a chunk of twice its size.
pub const REMEMBERED: usize = 16;

const _: () = assert!(size_of::<Upstream>() <= 256);

/// A count of changes that no list ever has.
pub const UNKNOWN: u64 = u64::MAX;

/// A server.
#[repr(C)]
pub struct Server {
    /// The next server.
    pub next: *mut Server,
    /// The one before.
    pub prev: *mut Server,
    /// The next servers in the chains of the index.
    pub chains: Chains,
    /// Identity.
    pub id: u64,
    /// Text of the `server` directive, and the address behind it.
    pub texts: *mut u8,
    /// Length of the text.
    pub server_len: u32,
    /// Length of the address.
    pub name_len: u32,
    /// Whether it is a `backup` server: 0 or 1.
    pub backup: u8,
    /// Whether nginx makes and removes its peers as a name resolves: 0 or 1.
    pub managed: u8,
    /// While records are claimed: 0 for nobody, 1 if it stays, 2 if another record inherits its id. While they are found
    /// by a walk over peers: 1 for those that were.
    pub taken: Cell<u8>,
    /// Its peer, in the zone of the upstream; null for none. It is right as long as nginx's count of changes is what
    /// the upstream's `indexed` says, in processes of the configuration that the store was last adopted by.
    pub peer: *mut c_void,
    /// The change of the upstream that brought it; 0 for the configuration.
    pub born: u64,
    /// The change that removed it; 0 for none.
    pub gone: u64,
    /// What the configuration says of it.
    pub base: StoredTerms,
    /// What was wanted last, and before: the one with the larger revision, unless that is beyond the revision of the
    /// upstream, counts.
    pub wishes: [Wish; 2],
    /// Room for a reason of each wish; null until the state was first asked for. It is taken for both at once: whoever
    /// has taken a server down can take it up again in a zone that is full by then.
    pub reasons: *mut [Reason; 2],
}

/// The slab gives out chunks of powers of two: one byte more would cost as much again, for each server.
const _: () = assert!(size_of::<Server>() <= 256 && size_of::<[Reason; 2]>() <= 512);

impl Server {
    /// Which list it belongs to.
    pub fn group(&self) -> Group {
        if self.backup == 0 { Group::Primary } else { Group::Backup }
    }

    /// Text of the `server` directive.
    pub fn server(&self) -> &[u8] {
        self.texts(0, self.server_len)
    }

    /// Its address, as nginx writes it.
    pub fn name(&self) -> &[u8] {
        self.texts(self.server_len, self.name_len)
    }

    /// A part of its texts.
    fn texts(&self, from: u32, len: u32) -> &[u8] {
        if self.texts.is_null() {
            return &[];
        }
        // SAFETY: the chunk was filled before anything referred to the record, and both are freed together, under the
        // lock that whoever has the reference holds.
        unsafe { std::slice::from_raw_parts(self.texts.add(from as usize), len as usize) }
    }

    /// Whether it came by a change of the run time after revision `since`.
    pub fn came_after(&self, since: u64) -> bool {
        self.born > since
    }

    /// Whether it is there, if its upstream is at `revision`.
    pub fn exists(&self, revision: u64) -> bool {
        self.born <= revision && (self.gone == 0 || self.gone > revision)
    }

    /// What is wanted of it, if its upstream is at `revision`.
    pub fn wish(&self, revision: u64) -> Wish {
        let [first, second] = self.wishes;
        if second.age(revision) > first.age(revision) { second } else { first }
    }

    /// What was wanted before, whose place the next wish takes.
    pub fn spare(&mut self, revision: u64) -> &mut Wish {
        let [first, second] = &mut self.wishes;
        if second.age(revision) > first.age(revision) { first } else { second }
    }

    /// Who asked for a wish of this server.
    pub fn reason(&self, wish: &Wish) -> Option<Reason> {
        // SAFETY: the room is filled before a wish refers to it, and is freed with the server, under the lock that
        // whoever has the reference holds.
        let reasons = unsafe { self.reasons.as_ref()? };
        let place = wish.reason.checked_sub(1).and_then(|place| usize::try_from(place).ok())?;
        reasons.get(place).copied()
    }

    /// Keeps a reason where that of the wish that counts is not. Returns what the next wish says of it: that there is
    /// none if there is no room.
    pub fn keep(&mut self, reason: Reason, counts: &Wish) -> u64 {
        // SAFETY: as above; no wish that counts refers to the place.
        let Some([first, second]) = (unsafe { self.reasons.as_mut() }) else { return 0 };
        let (place, at) = if counts.reason == 1 { (second, 2) } else { (first, 1) };
        *place = reason;
        at
    }
}

/// [`Terms`] as they lie in the zone. The enumerations of other rooms are kept as numbers, since a later build of the
/// module may read them.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct StoredTerms {
    /// 0 up, 1 down, 2 draining.
    admin: u64,
    /// weight, max_conns, max_fails, fail_timeout.
    params: [u64; 4],
}

impl From<Terms> for StoredTerms {
    fn from(Terms { admin, params }: Terms) -> Self {
        let admin = match admin {
            Admin::Up => 0,
            Admin::Down => 1,
            Admin::Drain => 2,
        };
        Self { admin, params: [params.weight, params.max_conns, params.max_fails, params.fail_timeout] }
    }
}

impl From<StoredTerms> for Terms {
    fn from(stored: StoredTerms) -> Self {
        let admin = match stored.admin {
            0 => Admin::Up,
            1 => Admin::Down,
            _ => Admin::Drain,
        };
        let [weight, max_conns, max_fails, fail_timeout] = stored.params;
        Self { admin, params: Params { weight, max_conns, max_fails, fail_timeout } }
    }
}

/// What is wanted of a server.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct Wish {
    /// The change of the upstream that brought it; 0 for the configuration.
    pub revision: u64,
    /// What it is to be.
    terms: StoredTerms,
    /// Who asked for the state: the first or the second reason of the server, from 1; 0 for nobody since the start.
    pub reason: u64,
}

impl Wish {
    /// A wish.
    pub fn new(revision: u64, terms: StoredTerms, reason: u64) -> Self {
        Self { revision, terms, reason }
    }

    /// What the configuration wants.
    pub fn of_configuration(terms: StoredTerms) -> Self {
        Self::new(0, terms, 0)
    }

    /// The same, but nobody asked for it.
    pub fn without_reason(self) -> Self {
        Self { reason: 0, ..self }
    }

    /// How new it is, if its upstream is at `revision`: 0 if it was never published.
    fn age(&self, revision: u64) -> u64 {
        if self.revision > revision { 0 } else { self.revision.saturating_add(1) }
    }

    /// What the server is to be.
    pub fn terms(&self) -> Terms {
        self.terms.into()
    }

    /// Whether it asks for this.
    pub fn asks_for(&self, terms: StoredTerms) -> bool {
        self.terms == terms
    }
}

/// Who asked for a state.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct Reason {
    /// When, in seconds since the epoch.
    pub at: i64,
    /// Length of the client's address.
    pub client_len: u8,
    /// Length of the user.
    pub user_len: u8,
    /// Length of the note.
    pub note_len: u8,
    /// Address of the client.
    pub client: [u8; CLIENT_MAX],
    /// Its user; empty for none.
    pub user: [u8; USER_MAX],
    /// The client's words.
    pub note: [u8; NOTE_MAX],
}

/// The slab gives out chunks of powers of two.
const _: () = assert!(size_of::<Reason>() <= 256);

impl Reason {
    /// A reason; what is too long is cut.
    pub fn new(at: i64, client: &Client, note: Option<&str>) -> Self {
        let (user_len, user) = fixed(client.user.as_deref().unwrap_or_default());
        let (client_len, client) = fixed(&client.address);
        let (note_len, note) = fixed(note.unwrap_or_default());
        Self { at, client_len, user_len, note_len, client, user, note }
    }

    /// Address of the client.
    pub fn client(&self) -> String {
        text(&self.client, self.client_len)
    }

    /// The same as it was given.
    pub fn client_bytes(&self) -> &[u8] {
        self.client.get(..usize::from(self.client_len)).unwrap_or_default()
    }

    /// The client's user.
    pub fn user(&self) -> Option<String> {
        (self.user_len > 0).then(|| text(&self.user, self.user_len))
    }

    /// The client's words.
    pub fn note(&self) -> Option<String> {
        (self.note_len > 0).then(|| text(&self.note, self.note_len))
    }
}

/// The first bytes of a string, and how many they are.
fn fixed<const N: usize>(string: &str) -> (u8, [u8; N]) {
    let mut bytes = [0; N];
    let mut len = 0_u8;
    for (to, from) in bytes.iter_mut().zip(string.bytes()) {
        *to = from;
        len = len.saturating_add(1);
    }
    (len, bytes)
}

/// The string of the first `len` bytes; a character cut in two is replaced.
fn text(bytes: &[u8], len: u8) -> String {
    let bytes = bytes.get(..usize::from(len)).unwrap_or_default();
    match str::from_utf8(bytes) {
        Ok(text) => text.to_owned(),
        Err(_) => String::from_utf8_lossy(bytes).into_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reason_gives_back_what_was_put_in() {
        let client = Client { address: "192.0.2.1".into(), user: Some("alice".into()) };
        let reason = Reason::new(7, &client, Some("planned"));
        assert_eq!(
            (reason.at, reason.client(), reason.user(), reason.note()),
            (7, "192.0.2.1".into(), Some("alice".into()), Some("planned".into()))
        );
        let reason = Reason::new(7, &"unix:".into(), None);
        assert_eq!((reason.user(), reason.note()), (None, None));
    }

    #[test]
    fn what_is_too_long_is_cut() {
        let client = Client { address: "1".repeat(200), user: Some("u".repeat(200)) };
        let reason = Reason::new(0, &client, Some(&"n".repeat(300)));
        assert_eq!(reason.client().len(), CLIENT_MAX);
        assert_eq!(reason.user().map(|user| user.len()), Some(USER_MAX));
        assert_eq!(reason.note().map(|note| note.len()), Some(NOTE_MAX));
    }
}
