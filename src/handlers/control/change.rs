//! A change that was made: what the reply and the log say of it.

use std::fmt::Write;

use crate::model::snapshot::{Peer, Snapshot};
use crate::nginx::log::Level;
use crate::ops::{Command, Entry, OpError, Outcome, Upstreams, execute};

use super::super::respond::Answer;

/// A change that was made.
pub struct Done {
    /// The upstream after it. Others may have changed it again since.
    pub snapshot: Snapshot,
    /// The servers that were chosen.
    entries: Vec<Entry>,
    /// Lines for the log, one for each server that is not as it was.
    lines: Vec<String>,
}

impl Done {
    /// The peers that were chosen, as they are now.
    pub fn peers(&self) -> Vec<&Peer> {
        let chosen = |peer: &&Peer| self.entries.iter().any(|entry| Some(entry.id) == peer.id);
        self.snapshot.peers.iter().filter(chosen).collect()
    }

    /// Adds the lines for the log to the answer.
    pub fn log(&self, answer: Answer) -> Answer {
        self.lines.iter().fold(answer, |answer, line| answer.logged(Level::Notice, line))
    }
}

/// Carries out a command.
///
/// # Errors
///
/// Why nothing was changed.
pub fn carry_out(upstreams: &dyn Upstreams, command: &Command) -> Result<Done, OpError> {
    let outcome = execute(upstreams, command)?;
    // Upstreams do not go away while a configuration is in use.
    let snapshot = upstreams
        .snapshot(outcome.upstream)
        .ok_or_else(|| OpError::UpstreamNotFound(command.upstream.clone()))?;
    let lines = lines(&snapshot.name, command, &outcome);
    Ok(Done { snapshot, entries: outcome.entries, lines })
}

/// The lines for the log. nginx adds client and request line to them.
fn lines(upstream: &str, command: &Command, outcome: &Outcome) -> Vec<String> {
    outcome.entries.iter().filter_map(|entry| line(upstream, command, outcome, entry)).collect()
}

/// The line for one server; none if it is as it was.
fn line(upstream: &str, command: &Command, outcome: &Outcome, entry: &Entry) -> Option<String> {
    let mut changes: Vec<String> = entry
        .differences()
        .iter()
        .map(|difference| format!("{} {} -> {}", difference.what, difference.from, difference.to))
        .collect();
    let note = command.note.as_deref();
    if changes.is_empty() {
        // A new note on the same state is a change, too.
        note.filter(|_| entry.restate)?;
        changes.push(format!("state {}", entry.to.admin.as_str()));
    }
    let mut line = format!(
        "upstream \"{upstream}\" server \"{}\": {}, revision {}",
        entry.server,
        changes.join(", "),
        outcome.revision
    );
    if let Some(note) = note {
        // A quote in it must not look like the end of it. Writing to a String cannot fail.
        let note = note.replace('\\', "\\\\").replace('"', "\\\"");
        let _ = write!(line, ", note: \"{note}\"");
    }
    Some(line)
}

#[cfg(test)]
mod tests {
    use super::super::super::fake::fake;
    use super::*;
    use crate::model::params::Param;
    use crate::model::state::Admin;
    use crate::ops::{Change, Selector};

    /// A command for servers of `backend`.
    fn command(
        servers: &[usize],
        admin: Option<Admin>,
        params: Vec<(Param, u64)>,
        note: Option<&str>,
    ) -> Command {
        Command {
            upstream: "backend_zone".to_owned(),
            servers: servers.iter().copied().map(Selector::Position).collect(),
            change: Change { admin, params },
            client: "127.0.0.1".to_owned(),
            note: note.map(str::to_owned),
        }
    }

    #[test]
    fn a_line_for_each_server_that_changed() {
        let upstreams = fake();
        let lines = |command: &Command| carry_out(&upstreams, command).unwrap().lines;
        let down = command(&[0], Some(Admin::Down), vec![(Param::Weight, 5)], None);
        assert_eq!(
            lines(&down),
            ["upstream \"backend\" server \"127.0.0.1:8081\": state up -> down, weight 1 -> 5, revision 4"]
        );
        assert!(lines(&down).is_empty(), "a no-op");
        assert_eq!(
            lines(&command(&[0, 1], Some(Admin::Down), Vec::new(), Some("disk"))),
            [
                "upstream \"backend\" server \"127.0.0.1:8081\": state down, revision 5, note: \"disk\"",
                "upstream \"backend\" server \"127.0.0.1:8082\": state up -> down, revision 5, note: \"disk\"",
            ]
        );
        let same = command(&[0], None, vec![(Param::Weight, 5)], Some("noted"));
        assert!(lines(&same).is_empty(), "a note on what was not asked for");
    }

    #[test]
    fn a_note_cannot_end_early() {
        let noted = command(&[0], Some(Admin::Up), Vec::new(), Some(r#"x", client: \1"#));
        assert_eq!(
            carry_out(&fake(), &noted).unwrap().lines,
            [r#"upstream "backend" server "127.0.0.1:8081": state up, revision 4, note: "x\", client: \\1""#]
        );
    }

    #[test]
    fn the_peers_that_were_chosen() {
        let upstreams = fake();
        let done = carry_out(&upstreams, &command(&[2, 0], Some(Admin::Drain), Vec::new(), None)).unwrap();
        let servers: Vec<_> = done.peers().iter().map(|peer| peer.server.clone()).collect();
        assert_eq!(servers, ["127.0.0.1:8081", "app.example.com"]);
    }
}
