//! What is to be done to each server, and what was done.

use std::fmt::{self, Display};

use crate::model::address::Address;
use crate::model::client::Client;
use crate::model::id::{Group, Revision, ServerId, UpstreamIndex};
use crate::model::params::{PARAMS, Params};
use crate::model::state::Admin;

use super::command::{Addition, Change};

/// Largest length of a note, in bytes: a line's worth, since the store keeps it.
pub const NOTE_MAX: usize = 128;

/// What is asked of one server, and its parameters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Wish {
    /// Up, down or draining.
    pub admin: Admin,
    /// weight, max_conns, max_fails, fail_timeout.
    pub params: Params,
}

impl Wish {
    /// The same, with what a change asks for.
    pub fn with(mut self, change: &Change) -> Self {
        if let Some(admin) = change.admin {
            self.admin = admin;
        }
        for &(param, value) in &change.params {
            self.params.set(param, value);
        }
        self
    }

    /// What is to be other than it is.
    pub fn differences(&self, to: &Self) -> Vec<Difference> {
        let mut differences = Vec::new();
        let mut add = |what, from: &dyn Display, to: &dyn Display| {
            differences.push(Difference { what, from: from.to_string(), to: to.to_string() });
        };
        if self.admin != to.admin {
            add("state", &self.admin.as_str(), &to.admin.as_str());
        }
        for row in &PARAMS {
            let (from, to) = (self.params.get(row.param), to.params.get(row.param));
            if from != to {
                add(row.name, &from, &to);
            }
        }
        differences
    }
}

/// One thing that changes, for the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Difference {
    /// `state`, or the name of a parameter.
    pub what: &'static str,
    /// What it was.
    pub from: String,
    /// What it is to be.
    pub to: String,
}

impl Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} -> {}", self.what, self.from, self.to)
    }
}

/// What becomes of one server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Identity.
    pub id: ServerId,
    /// Its list.
    pub group: Group,
    /// Text of the `server` directive.
    pub server: String,
    /// Before the change.
    pub from: Wish,
    /// After it.
    pub to: Wish,
    /// What was asked for: nothing else is to change, whatever it is by then.
    pub asked: Change,
    /// Its new address, and the text of it; none if it stays.
    pub readdress: Option<NewAddress>,
}

/// Another address of a server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewAddress {
    /// The address.
    pub address: Address,
    /// What it was, as nginx writes it.
    pub from: String,
}

/// A server that is to leave.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Removal {
    /// Identity.
    pub id: ServerId,
    /// Its list.
    pub group: Group,
    /// What was wanted of it.
    pub admin: Admin,
    /// Text of the server.
    pub server: String,
    /// Its address.
    pub name: String,
    /// Requests that it served when the plan was made.
    pub active: u64,
}

impl Entry {
    /// Whether it is brought up, which also forgets its failures.
    pub fn revives(&self) -> bool {
        self.asked.admin == Some(Admin::Up)
    }

    /// Whether its state was asked for, so that the client and the note are the reason of it.
    pub fn restates(&self) -> bool {
        self.asked.admin.is_some()
    }

    /// Whether anything is to be other than it is.
    pub fn is_change(&self) -> bool {
        self.from != self.to || self.readdress.is_some()
    }

    /// What is to be other than it is.
    pub fn differences(&self) -> Vec<Difference> {
        let mut differences = self.from.differences(&self.to);
        if let Some(new) = self.readdress.as_ref().filter(|new| new.address.to_string() != new.from) {
            let address = Difference { what: "address", from: new.from.clone(), to: new.address.to_string() };
            // After the state.
            differences.insert(usize::from(self.from.admin != self.to.admin), address);
        }
        differences
    }
}

/// What a command comes to. Nothing was changed yet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plan {
    /// The change of the upstream that it was made for.
    pub revision: Revision,
    /// nginx's count of changes to the lists that it was made for.
    pub membership: u64,
    /// The servers, each once, in nginx's order.
    pub entries: Vec<Entry>,
    /// The servers that leave, in nginx's order.
    pub removed: Vec<Removal>,
    /// The servers that are new; each becomes the last of its list.
    pub added: Vec<Addition>,
    /// Who asks.
    pub client: Client,
    /// The client's words.
    pub note: Option<String>,
}

impl Plan {
    /// To how many servers something is done.
    pub fn len(&self) -> usize {
        self.entries.len() + self.removed.len() + self.added.len()
    }

    /// Whether nothing is to be done.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// What was done.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// The upstream.
    pub upstream: UpstreamIndex,
    /// Its number of changes now.
    pub revision: Revision,
    /// The servers that were chosen, and what changed.
    pub entries: Vec<Entry>,
    /// The servers that left.
    pub removed: Vec<Removal>,
    /// The servers that are new, with their ids.
    pub added: Vec<(ServerId, Addition)>,
    /// How many servers there are now.
    pub left: usize,
}
