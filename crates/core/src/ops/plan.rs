//! What is to be done to each server, and what was done.

use std::fmt::{self, Display};

use crate::model::address::Address;
use crate::model::client::Client;
use crate::model::id::{Revision, ServerId};
use crate::model::params::PARAMS;
use crate::model::server::{Change, Server, Terms};
use crate::model::state::Admin;

/// Largest length of a note, in bytes: a line's worth, since the store keeps it.
pub const NOTE_MAX: usize = 128;

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
    /// The server before the change.
    pub server: Server<String>,
    /// What it is to be.
    pub to: Terms,
    /// What was asked for: nothing else is to change, whatever it is by then.
    pub asked: Change,
    /// Its new address; none if it stays.
    pub readdress: Option<Address>,
}

/// A server that is to leave.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Removal {
    /// Identity.
    pub id: ServerId,
    /// The server.
    pub server: Server<String>,
    /// Requests that it served when the plan was made.
    pub active: u64,
}

impl Terms {
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

impl Entry {
    /// Whether it is brought up, which also forgets its failures.
    pub fn revives(&self) -> bool {
        self.asked.admin == Some(Admin::Up)
    }

    /// Whether its state was asked for, so that the client and the note are the reason of it.
    pub fn restates(&self) -> bool {
        self.asked.admin.is_some()
    }

    /// The server at its new address, which is its text, too; none if it stays.
    pub fn moved(&self) -> Option<Server> {
        let address = self.readdress.clone()?;
        Some(Server { text: address.to_string(), address, group: self.server.group, terms: self.to })
    }

    /// Whether anything is to be other than it is.
    pub fn is_change(&self) -> bool {
        self.server.terms != self.to || self.readdress.is_some()
    }

    /// What is to be other than it is.
    pub fn differences(&self) -> Vec<Difference> {
        let (from, to) = (&self.server.terms, &self.to);
        let mut differences = from.differences(to);
        if let Some(address) = self.readdress.as_ref().filter(|it| it.to_string() != self.server.address) {
            let from = self.server.address.clone();
            let address = Difference { what: "address", from, to: address.to_string() };
            // After the state.
            differences.insert(usize::from(self.server.terms.admin != to.admin), address);
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
    pub added: Vec<Server>,
    /// Who asks.
    pub client: Client,
    /// The client's words.
    pub note: Option<String>,
}

impl Plan {
    /// To do nothing, for an upstream as it is at this change and at nginx's count.
    pub fn new(revision: Revision, membership: u64, client: &Client, note: Option<&str>) -> Self {
        Self {
            revision,
            membership,
            entries: Vec::new(),
            removed: Vec::new(),
            added: Vec::new(),
            client: client.clone(),
            note: note.map(str::to_owned),
        }
    }

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
    /// The upstream's number of changes now.
    pub revision: Revision,
    /// The servers that were chosen, and what changed.
    pub entries: Vec<Entry>,
    /// The servers that left.
    pub removed: Vec<Removal>,
    /// The servers that are new, with their ids.
    pub added: Vec<(ServerId, Server)>,
    /// How many servers there are now.
    pub left: usize,
}
