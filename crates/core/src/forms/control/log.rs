//! What the log says of a change. nginx adds client and request line to each line.

use std::fmt::Write;

use crate::model::id::{Revision, ServerId};
use crate::model::log::plural;
use crate::model::params::PARAMS;
use crate::model::server::Server;
use crate::model::state::Admin;
use crate::ops::{Command, Entry, Outcome, Removal, Selector};

/// The lines of a change: one for each server that is not as it was.
pub fn lines(upstream: &str, command: &Command, outcome: &Outcome) -> Vec<String> {
    let added = outcome.added.iter().map(|(_, server)| server);
    let by_position = command.servers.iter().any(|server| matches!(server, Selector::Position(_)));
    let (user, note) = (command.client.user.as_deref(), command.note.as_deref());
    let change = Lines { upstream, revision: outcome.revision, user, note, by_position };
    change.of(&outcome.entries, &outcome.removed, added).collect()
}

/// What the lines of a change have in common.
pub struct Lines<'a> {
    /// Name of the upstream.
    pub upstream: &'a str,
    /// Its number of changes now.
    pub revision: Revision,
    /// The client's user.
    pub user: Option<&'a str>,
    /// The client's words.
    pub note: Option<&'a str>,
    /// Whether servers were chosen by position, which is another server's when one before it has left: then the lines
    /// have ids.
    pub by_position: bool,
}

impl<'a> Lines<'a> {
    /// The lines, each made when it is asked for.
    pub fn of(
        &'a self,
        entries: &'a [Entry],
        removed: &'a [Removal],
        added: impl Iterator<Item = &'a Server> + 'a,
    ) -> impl Iterator<Item = String> + 'a {
        let changed = entries.iter().filter(|entry| is_changed(entry, self.note.is_some()));
        let changed = changed.map(|entry| self.line(&entry.server.text, entry.id, &what_changed(entry)));
        let removed =
            removed.iter().map(|removal| self.line(&removal.server.text, removal.id, &what_left(removal)));
        let added = added.map(|server| self.line(&server.text, None, &what_came(server)));
        changed.chain(removed).chain(added)
    }

    /// A line about one server.
    fn line(&self, server: &str, id: impl Into<Option<ServerId>>, what: &str) -> String {
        let Self { upstream, revision, user, note, by_position } = self;
        let mut line = format!("upstream \"{upstream}\" server \"{server}\": {what}, revision {revision}");
        // Writing to a String cannot fail.
        if let (true, Some(id)) = (by_position, id.into()) {
            let _ = write!(line, ", id {id}");
        }
        for (what, words) in [("user", user), ("note", note)] {
            if let Some(words) = words {
                // A quote in it must not look like the end of it.
                let words = words.replace('\\', "\\\\").replace('"', "\\\"");
                let _ = write!(line, ", {what}: \"{words}\"");
            }
        }
        line
    }
}

/// How many lines a change has.
pub fn count(command: &Command, outcome: &Outcome) -> usize {
    let changed = outcome.entries.iter().filter(|entry| is_changed(entry, command.note.is_some())).count();
    changed + outcome.removed.len() + outcome.added.len()
}

/// Whether a server is not as it was. A new note on the same state is a change, too.
fn is_changed(entry: &Entry, is_noted: bool) -> bool {
    entry.is_change() || (is_noted && entry.restates())
}

/// What changed of a server.
fn what_changed(entry: &Entry) -> String {
    let differences = entry.differences();
    if differences.is_empty() {
        return format!("state {}", entry.to.admin.as_str());
    }
    differences.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}

/// What is said of a server that left.
fn what_left(removal: &Removal) -> String {
    let requests = plural(removal.active as usize, "request");
    format!("removed, {requests} {} still served", if removal.active == 1 { "is" } else { "are" })
}

/// What is said of a new server.
fn what_came(server: &Server) -> String {
    let mut text = "added".to_owned();
    let address = server.address.to_string();
    if address != server.text {
        text.push_str(", address ");
        text.push_str(&address);
    }
    for row in &PARAMS {
        // Writing to a String cannot fail.
        let _ = write!(text, ", {} {}", row.name, server.terms.params.get(row.param));
    }
    if server.group.is_backup() {
        text.push_str(", backup");
    }
    if server.terms.admin != Admin::Up {
        text.push_str(", state ");
        text.push_str(server.terms.admin.as_str());
    }
    text
}

#[cfg(test)]
mod tests {
    use super::super::super::call::Call;
    use super::super::super::fake::fake;
    use super::super::change::{Shown, carry_out};
    use super::*;
    use crate::model::address::Address;
    use crate::model::id::Group;
    use crate::model::params::Param;
    use crate::model::server::{Change, Terms};
    use crate::ops::{Action, Selector, Upstreams};

    /// A command for servers of `backend`.
    fn command(servers: &[usize], action: Action, note: Option<&str>) -> Command {
        Command {
            upstream: fake().find("backend_zone").unwrap(),
            servers: servers.iter().copied().map(Selector::Position).collect(),
            action,
            force: false,
            client: "127.0.0.1".into(),
            note: note.map(str::to_owned),
        }
    }

    /// A change of state and parameters.
    fn set(admin: Option<Admin>, params: Vec<(Param, u64)>) -> Action {
        Action::Set(Change { admin, params })
    }

    #[test]
    fn a_line_for_each_server_that_changed() {
        let upstreams = fake();
        let lines = |command: &Command| {
            let done = carry_out(&Call::get(""), &upstreams, command, Shown::Chosen).unwrap();
            assert_eq!(done.lines().len(), done.changed);
            done.lines().to_vec()
        };
        let down = command(&[0], set(Some(Admin::Down), vec![(Param::Weight, 5)]), None);
        assert_eq!(
            lines(&down),
            [
                "upstream \"backend\" server \"127.0.0.1:8081\": state up -> down, weight 1 -> 5, revision 4, id 0"
            ]
        );
        assert!(lines(&down).is_empty(), "a no-op");
        assert_eq!(
            lines(&command(&[0, 1], set(Some(Admin::Down), Vec::new()), Some("disk"))),
            [
                "upstream \"backend\" server \"127.0.0.1:8081\": state down, revision 5, id 0, note: \"disk\"",
                "upstream \"backend\" server \"127.0.0.1:8082\": state up -> down, revision 5, id 1, note: \"disk\"",
            ]
        );
        let same = command(&[0], set(None, vec![(Param::Weight, 5)]), Some("noted"));
        assert!(lines(&same).is_empty(), "a note on what was not asked for");
    }

    #[test]
    fn a_note_cannot_end_early() {
        let noted = command(&[0], set(Some(Admin::Up), Vec::new()), Some(r#"x", client: \1"#));
        assert_eq!(
            carry_out(&Call::get(""), &fake(), &noted, Shown::Chosen).unwrap().lines(),
            [
                r#"upstream "backend" server "127.0.0.1:8081": state up, revision 4, id 0, note: "x\", client: \\1""#
            ]
        );
    }

    #[test]
    fn servers_that_come_go_and_move() {
        let line = |servers: &[usize], action, note| {
            carry_out(&Call::get(""), &fake(), &command(servers, action, note), Shown::Chosen)
                .unwrap()
                .lines()
                .join("\n")
        };
        let new = |server: &str, group, admin| {
            let address = Address::parse(server).unwrap();
            let terms = Terms { admin, ..Terms::default() };
            Action::Add(Server { text: server.to_owned(), address, group, terms })
        };
        assert_eq!(
            line(&[], new("127.0.0.9:80", Group::Primary, Admin::Up), Some("new")),
            "upstream \"backend\" server \"127.0.0.9:80\": added, weight 1, max_conns 0, max_fails 1, \
             fail_timeout 10, revision 4, note: \"new\""
        );
        assert_eq!(
            line(&[], new("127.0.0.9", Group::Backup, Admin::Down), None),
            "upstream \"backend\" server \"127.0.0.9\": added, address 127.0.0.9:80, weight 1, max_conns 0, \
             max_fails 1, fail_timeout 10, backup, state down, revision 4"
        );
        assert_eq!(
            line(&[1], Action::Remove, Some("gone")),
            "upstream \"backend\" server \"127.0.0.1:8082\": removed, 0 requests are still served, revision 4, \
             id 1, note: \"gone\""
        );
        let change = Change { admin: Some(Admin::Drain), params: Vec::new() };
        assert_eq!(
            line(&[0], Action::Readdress { address: "127.0.0.9".to_owned(), change }, None),
            "upstream \"backend\" server \"127.0.0.1:8081\": state up -> draining, \
             address 127.0.0.1:8081 -> 127.0.0.9:8081, revision 4, id 0"
        );
    }
}
