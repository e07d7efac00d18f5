//! A change that a script asks for.

use std::borrow::Cow;

use crate::forms::control::log;
use crate::forms::{Kind, Refusal};
use crate::model::address::Address;
use crate::model::client::Client;
use crate::model::id::{Group, ServerId};
use crate::model::log::Level;
use crate::model::params::{PARAMS, Param, ParamError};
use crate::model::server::{Change, Server, Terms};
use crate::model::state::Admin;
use crate::nginx::caller::Caller;
use crate::ops::{Action, Command, Lookup, OpError, Plan, Selector, Upstreams, execute_if};

use super::failure::Failure;
use super::reply::{Row, Space, bytes};

/// The client of a change that no request asked for.
const CLIENT: &str = "lua";

/// Bit of [`Ask::flags`]: a server that is added is a backup.
const BACKUP: u32 = 1;

/// Bit of [`Ask::flags`]: the guard of the upstream is set aside.
const FORCE: u32 = 2;

/// Bit of [`Ask::flags`]: the last server of an upstream may not be removed.
const KEEP_ONE: u32 = 4;

/// Bit of a length in [`Texts::lengths`]: the text is an id in digits.
const IS_ID: u32 = 1 << 31;

/// What a script asks for, in numbers.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Ask {
    /// Values for weight, max_conns, max_fails, fail_timeout: the order of [`PARAMS`].
    pub params: [f64; 4],
    /// Which of them are given: a bit for each, the lowest for the first.
    pub given: u32,
    /// 0: other parameters or another state. 1: a new server. 2: a server leaves. 3: another address.
    pub action: u32,
    /// 0: as it is, or up for a new server. 1: up. 2: down. 3: draining.
    pub state: u32,
    /// Bits: 1, 2 and 4, see the constants of this file.
    pub flags: u32,
}

/// What a script asks for, in words.
#[repr(C)]
pub struct Texts {
    /// Name of the upstream, or of its zone.
    upstream: *const u8,
    /// Its length.
    upstream_len: usize,
    /// The servers, one text behind the other.
    servers: *const u8,
    /// Length of each.
    lengths: *const u32,
    /// How many there are.
    count: usize,
    /// The new address, for [`Ask::action`] 3.
    address: *const u8,
    /// Its length.
    address_len: usize,
    /// The note.
    note: *const u8,
    /// Its length; 0 for none.
    note_len: usize,
}

/// A change in words that can be trusted to be there.
#[derive(Clone, Debug)]
pub struct Words<'a> {
    /// What is asked for, in numbers.
    pub ask: Ask,
    /// Name of the upstream.
    pub upstream: &'a [u8],
    /// The servers, and whether each is an id.
    pub servers: Vec<(&'a [u8], bool)>,
    /// The new address.
    pub address: &'a [u8],
    /// The note.
    pub note: &'a [u8],
}

/// What was done.
#[repr(C)]
pub struct Done {
    /// Number of changes of the upstream now.
    revision: f64,
    /// How many servers are not as they were.
    changed: f64,
    /// How many servers there are now.
    left: f64,
    /// Identity of the new server; -1 for none.
    id: f64,
}

// SAFETY: four doubles.
unsafe impl Row for Done {}

// What lualib/ngx/upstream_control/ffi.lua takes them for.
const _: () = assert!(size_of::<Ask>() == 4 * 8 + 4 * 4);
const _: () = assert!(size_of::<Texts>() == 9 * size_of::<usize>());

impl Texts {
    /// The words; none if a pointer is missing.
    ///
    /// # Safety
    ///
    /// The pointers are to as many bytes as the structure says, which nobody changes for `'a`.
    pub unsafe fn words<'a>(&self, ask: &Ask) -> Option<Words<'a>> {
        if self.count > 0 && (self.lengths.is_null() || self.servers.is_null()) {
            return None;
        }
        let mut servers = Vec::with_capacity(self.count);
        let mut from = self.servers;
        for at in 0..self.count {
            // SAFETY: the duty of the caller: there are so many lengths, and as many bytes as they say.
            unsafe {
                let length = *self.lengths.add(at);
                let len = (length & !IS_ID) as usize;
                servers.push((bytes(from, len), length & IS_ID != 0));
                from = from.add(len);
            }
        }
        // SAFETY: the duty of the caller.
        let [upstream, address, note] = unsafe {
            [
                bytes(self.upstream, self.upstream_len),
                bytes(self.address, self.address_len),
                bytes(self.note, self.note_len),
            ]
        };
        Some(Words { ask: *ask, upstream, servers, address, note })
    }
}

impl Words<'_> {
    /// The command that they are.
    fn command(&self, upstreams: &dyn Upstreams, client: Client) -> Result<Command, Failure> {
        let upstream = str::from_utf8(self.upstream)
            .map_err(|_| OpError::UpstreamNotFound(lossy(self.upstream).into_owned()))?;
        let note = str::from_utf8(self.note).map_err(|_| bad("note: not UTF-8"))?;
        let change = self.change()?;
        let (servers, action) = match self.ask.action {
            0 => (self.selectors()?, Action::Set(change)),
            1 => (Vec::new(), Action::Add(self.addition(&change)?)),
            2 => (self.selectors()?, Action::Remove),
            3 => {
                let address = lossy(self.address).into_owned();
                (self.selectors()?, Action::Readdress { address, change })
            }
            _ => return Err(bad("unknown action")),
        };
        Ok(Command {
            upstream: upstreams.find(upstream)?,
            servers,
            action,
            force: self.ask.flags & FORCE != 0,
            client,
            note: (!note.is_empty()).then(|| note.to_owned()),
        })
    }

    /// What is to become of servers.
    fn change(&self) -> Result<Change, Failure> {
        let admin = match self.ask.state {
            0 => None,
            1 => Some(Admin::Up),
            2 => Some(Admin::Down),
            3 => Some(Admin::Drain),
            _ => return Err(bad("unknown state")),
        };
        let rows = PARAMS.iter().zip(self.ask.params).enumerate();
        let given = rows.filter(|(at, _)| self.ask.given & (1 << at) != 0);
        let params = given.map(|(_, (row, value))| Ok((row.param, parse(row.param, value)?)));
        let params: Result<_, ParamError> = params.collect();
        let params = params.map_err(|error| Failure::new("BadParameter", error.to_string()))?;
        Ok(Change { admin, params })
    }

    /// The servers; an empty list chooses none, which is refused.
    fn selectors(&self) -> Result<Vec<Selector>, Failure> {
        if self.servers.is_empty() {
            return Err(bad("no server is named"));
        }
        let selector = |&(text, is_id): &(&[u8], bool)| {
            let text = lossy(text).into_owned();
            match text.parse() {
                _ if !is_id => Ok(Selector::Server(text)),
                Ok(id) => Ok(Selector::Id(ServerId(id))),
                Err(_) => Err(OpError::ServerNotFound(text).into()),
            }
        };
        self.servers.iter().map(selector).collect()
    }

    /// The server that is to be.
    fn addition(&self, change: &Change) -> Result<Server, Failure> {
        let [(server, false)] = self.servers.as_slice() else { return Err(bad("no server is named")) };
        let text = lossy(server).into_owned();
        let address = Address::parse(&text).map_err(OpError::BadAddress)?;
        let group = if self.ask.flags & BACKUP != 0 { Group::Backup } else { Group::Primary };
        Ok(Server { text, address, group, terms: Terms::default().with(change) })
    }
}

/// Carries out what a script asks for.
pub fn carry_out(
    upstreams: &dyn Upstreams,
    caller: &Caller<'_>,
    words: &Words<'_>,
    space: &mut Space<'_>,
) -> Result<(), Failure> {
    let (done, lines) =
        make(upstreams, words, caller.client(), || caller.log().is_some_and(|log| log.takes(Level::Notice)))?;
    space.reserve(size_of::<Done>());
    space.row(0, &done);
    if let Some(log) = caller.log() {
        lines.iter().for_each(|line| log.notice(line));
    }
    Ok(())
}

/// The same: what was done, and the lines for the log if it takes them.
fn make(
    upstreams: &dyn Upstreams,
    words: &Words<'_>,
    client: Option<String>,
    is_logged: impl FnOnce() -> bool,
) -> Result<(Done, Vec<String>), Failure> {
    let command = words.command(upstreams, client.map_or_else(|| CLIENT.into(), Client::from))?;
    let keeps_one = words.ask.flags & KEEP_ONE != 0;
    let outcome = execute_if(
        upstreams,
        &command,
        |lookup, plan| {
            if keeps_one { check_left(lookup, plan) } else { Ok(()) }
        },
    )?;
    let done = Done {
        revision: outcome.revision.0 as f64,
        changed: log::count(&command, &outcome) as f64,
        left: outcome.left as f64,
        id: outcome.added.first().map_or(-1.0, |(id, _)| id.0 as f64),
    };
    if !is_logged() {
        return Ok((done, Vec::new()));
    }
    // The script may have called it by the name of its zone.
    let name = upstreams.only(command.upstream, &[]).ok().map(|snapshot| snapshot.name);
    Ok((done, log::lines(&name.unwrap_or_default(), &command, &outcome)))
}

/// Refuses to remove all servers that there are.
fn check_left(lookup: &dyn Lookup, plan: &Plan) -> Result<(), OpError> {
    let (_, all) = lookup.usable();
    let is_last = !plan.removed.is_empty() && all <= plan.removed.len();
    if is_last { Err(OpError::Guarded { left: 0, min: 1 }) } else { Ok(()) }
}

/// The value of a parameter; what is no whole number is refused in the words for a text that is none.
fn parse(param: Param, value: f64) -> Result<u64, ParamError> {
    param.parse(&value.to_string()).map_err(|error| match error {
        // What stood there was no number to LuaJIT: its text is lost.
        ParamError::NotANumber(param, _) if value.is_nan() => ParamError::NotANumber(param, String::new()),
        error => error,
    })
}

/// Bytes as text; where they are none, it chooses no server.
fn lossy(bytes: &[u8]) -> Cow<'_, str> {
    String::from_utf8_lossy(bytes)
}

/// The refusal of a call that makes no sense.
fn bad(text: &str) -> Failure {
    Refusal::new(Kind::BadArgument, text).into()
}

#[cfg(test)]
mod tests;
