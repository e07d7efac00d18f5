//! What a server is, or is to be: the one shape in which lists, additions, plans and records hand it on.

use super::address::Address;
use super::id::Group;
use super::params::{PARAMS, Param, Params};
use super::state::Admin;

/// Whether a server takes requests, and how many.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Terms {
    /// Up, down or draining.
    pub admin: Admin,
    /// weight, max_conns, max_fails, fail_timeout.
    pub params: Params,
}

/// A server. The address is nginx's text for it where the server is there already, and may be missing in a list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Server<A = Address> {
    /// Its text, as it was typed or as the `server` directive has it: its identity beside the address.
    pub text: String,
    /// Its address.
    pub address: A,
    /// Which list of nginx's it is in.
    pub group: Group,
    /// Its state and its parameters.
    pub terms: Terms,
}

/// What is to become of a server; what is `None` or not there stays as it is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Change {
    /// Up, down or draining.
    pub admin: Option<Admin>,
    /// New values, each parameter at most once.
    pub params: Vec<(Param, u64)>,
}

impl Terms {
    /// Whether the server takes new requests.
    pub fn is_up(&self) -> bool {
        self.admin == Admin::Up
    }

    /// The same, with what a change asks for.
    #[must_use]
    pub fn with(mut self, change: &Change) -> Self {
        if let Some(admin) = change.admin {
            self.admin = admin;
        }
        for &(param, value) in &change.params {
            self.params.set(param, value);
        }
        self
    }

    /// The change that makes `to` of these, and asks for nothing else.
    pub fn change_to(&self, to: &Self) -> Change {
        let differs = PARAMS.iter().filter(|row| self.params.get(row.param) != to.params.get(row.param));
        Change {
            admin: (self.admin != to.admin).then_some(to.admin),
            params: differs.map(|row| (row.param, to.params.get(row.param))).collect(),
        }
    }
}

impl<A> Server<A> {
    /// The same server with this address.
    pub fn at<B>(&self, address: B) -> Server<B> {
        Server { text: self.text.clone(), address, group: self.group, terms: self.terms }
    }
}

impl Change {
    /// Whether nothing is asked for.
    pub fn is_empty(&self) -> bool {
        self.admin.is_none() && self.params.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_change_leads_from_terms_to_others() {
        let up = Terms::default();
        assert!(up.is_up());
        let params = Params { weight: 5, fail_timeout: 1, ..Params::default() };
        let draining = Terms { admin: Admin::Drain, params };
        let change = up.change_to(&draining);
        assert_eq!(change.admin, Some(Admin::Drain));
        assert_eq!(change.params, [(Param::Weight, 5), (Param::FailTimeout, 1)]);
        assert_eq!(up.with(&change), draining);
        assert!(up.change_to(&up).is_empty());
        assert_eq!(draining.with(&Change::default()), draining);
    }
}
