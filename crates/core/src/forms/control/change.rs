//! A change that was made: what the reply says of it.

use crate::model::id::ServerId;
use crate::model::log::Level;
use crate::model::snapshot::{Peer, Snapshot};
use crate::ops::{Command, OpError, Removal, Upstreams, execute};

use super::super::call::Call;
use super::super::respond::Answer;
use super::log;

/// How much of the upstream a reply shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shown {
    /// The servers that were chosen, or are new.
    Chosen,
    /// All of them.
    All,
}

/// A change that was made.
pub struct Done {
    /// The upstream after it, with as many of its peers as are shown. Others may have changed it again since.
    pub snapshot: Snapshot,
    /// How many servers there were after it.
    pub left: usize,
    /// The servers that left.
    pub removed: Vec<Removal>,
    /// How many servers are not as they were.
    pub changed: usize,
    /// Lines for the log, one for each of these, if it takes them.
    lines: Vec<String>,
    /// The servers that were chosen, or are new.
    chosen: Vec<ServerId>,
}

impl Done {
    /// The peers that were chosen, or are new, as they are now.
    pub fn peers(&self) -> Vec<&Peer> {
        let is_chosen = |peer: &&Peer| peer.id.is_some_and(|id| self.chosen.contains(&id));
        self.snapshot.peers.iter().filter(is_chosen).collect()
    }

    /// The lines for the log.
    #[cfg(test)]
    pub fn lines(&self) -> &[String] {
        &self.lines
    }

    /// Adds the lines for the log to the answer.
    pub fn log(&self, mut answer: Answer) -> Answer {
        answer.log.extend(self.lines.iter().map(|line| (Level::Notice, line.clone())));
        answer
    }
}

/// Carries out a command.
///
/// # Errors
///
/// Why nothing was changed.
pub fn carry_out(
    call: &Call<'_>,
    upstreams: &dyn Upstreams,
    command: &Command,
    shown: Shown,
) -> Result<Done, OpError> {
    if shown == Shown::All {
        // A change that was made must be told.
        upstreams.room(command.upstream)?;
    }
    let outcome = execute(upstreams, command)?;
    let entries = outcome.entries.iter().map(|entry| entry.id);
    let chosen: Vec<_> = entries.chain(outcome.added.iter().map(|(id, _)| *id)).collect();
    let snapshot = match shown {
        Shown::Chosen => upstreams.only(command.upstream, &chosen),
        Shown::All => upstreams.snapshot(command.upstream),
    };
    // Upstreams do not go away while a configuration is in use.
    let snapshot = snapshot?;
    let lines = if call.notices { log::lines(&snapshot.name, command, &outcome) } else { Vec::new() };
    let changed = log::count(command, &outcome);
    Ok(Done { snapshot, left: outcome.left, removed: outcome.removed, changed, lines, chosen })
}

#[cfg(test)]
mod tests {
    use super::super::super::fake::fake;
    use super::*;
    use crate::model::server::Change;
    use crate::model::state::Admin;
    use crate::ops::{Action, Selector};

    #[test]
    fn nothing_is_changed_that_could_not_be_told() {
        let mut upstreams = fake();
        upstreams.no_memory = true;
        let command = Command {
            upstream: fake().find("backend").unwrap(),
            servers: vec![Selector::Position(0)],
            action: Action::Remove,
            force: false,
            client: "".into(),
            note: None,
        };
        let refused = carry_out(&Call::get(""), &upstreams, &command, Shown::All).map(|done| done.left);
        assert_eq!(refused, Err(OpError::NoMemory));
        upstreams.no_memory = false;
        assert_eq!(carry_out(&Call::get(""), &upstreams, &command, Shown::All).map(|done| done.left), Ok(3));
    }

    #[test]
    fn the_peers_that_were_chosen() {
        let command = Command {
            upstream: fake().find("backend").unwrap(),
            servers: vec![Selector::Position(2), Selector::Position(0)],
            action: Action::Set(Change { admin: Some(Admin::Drain), params: Vec::new() }),
            force: false,
            client: "127.0.0.1".into(),
            note: None,
        };
        for shown in [Shown::All, Shown::Chosen] {
            let done = carry_out(&Call::get(""), &fake(), &command, shown).unwrap();
            let servers: Vec<_> = done.peers().iter().map(|peer| peer.server.clone()).collect();
            assert_eq!(servers, ["127.0.0.1:8081", "app.example.com"], "{shown:?}");
            assert_eq!((done.changed, done.lines().len()), (2, 2));
        }
        let quiet = Call { notices: false, ..Call::get("") };
        let done = carry_out(&quiet, &fake(), &command, Shown::Chosen).unwrap();
        assert_eq!((done.changed, done.lines().len()), (2, 0), "the log takes no notices");
    }
}
