//! The hosts by which browsers may ask for changes.

use std::fmt::Debug;
use std::rc::Rc;

use super::server_name::ServerName;

/// A regular expression, which somebody else has compiled.
pub trait Pattern: Debug {
    /// Whether a host matches.
    fn matches(&self, host: &str) -> bool;
}

/// Names of hosts, and expressions for them.
#[derive(Clone, Debug, Default)]
pub struct Hosts {
    /// Names.
    names: Vec<ServerName>,
    /// Regular expressions.
    patterns: Vec<Rc<dyn Pattern>>,
}

impl Hosts {
    /// The hosts of these names.
    pub fn new(names: Vec<ServerName>) -> Self {
        Self { names, patterns: Vec::new() }
    }

    /// Adds a name.
    pub fn add(&mut self, name: ServerName) {
        self.names.push(name);
    }

    /// Adds a regular expression.
    pub fn add_pattern(&mut self, pattern: Rc<dyn Pattern>) {
        self.patterns.push(pattern);
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.names.is_empty() && self.patterns.is_empty()
    }

    /// Whether a host, as nginx looks servers up by it, is one of them.
    pub fn has(&self, host: &str) -> bool {
        self.names.iter().any(|name| name.is_of(host))
            || self.patterns.iter().any(|pattern| pattern.matches(host))
    }
}

impl PartialEq for Hosts {
    fn eq(&self, other: &Self) -> bool {
        self.names == other.names
            && self.patterns.len() == other.patterns.len()
            && self.patterns.iter().zip(&other.patterns).all(|(one, other)| Rc::ptr_eq(one, other))
    }
}

impl Eq for Hosts {}
