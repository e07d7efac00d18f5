//! What is said of a replacement.

use std::fmt::{self, Write};

use serde::ser::SerializeMap;
use serde::{Serialize, Serializer};

use crate::model::log::{Level, escaped, plural};
use crate::model::server::{Server, Terms};
use crate::model::state::Admin;
use crate::model::time::Seconds;
use crate::ops::plan::Difference;
use crate::ops::replace::ReplaceCommand;
use crate::ops::{Entry, Removal, Replaced};

use super::super::super::respond::Answer;
use super::super::json::RemovedView;
use super::super::log::Lines;

/// Servers that the log has a line for; of the others it has the number.
const LINES: usize = 100;

/// What was done, or would be.
pub struct Report<'a> {
    /// The upstreams, in the order of their lists.
    pub done: &'a [Replaced],
    /// Whether nothing was changed.
    pub is_dry: bool,
    /// Whether the body named the upstreams.
    pub is_list: bool,
}

/// An upstream in JSON.
#[derive(Serialize)]
struct View<'a> {
    /// Its name.
    upstream: &'a str,
    /// Its number of changes.
    revision: u64,
    /// Whether nothing was changed.
    #[serde(skip_serializing_if = "is_false")]
    dry_run: bool,
    /// Servers that are new.
    added: Vec<AddedView<'a>>,
    /// Servers that left.
    removed: Vec<RemovedView<'a>>,
    /// Servers that were set.
    changed: Vec<ChangedView<'a>>,
    /// How many servers were not touched.
    unchanged: usize,
    /// What the list has to be told of.
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    notices: &'a [String],
}

/// A new server.
#[derive(Serialize)]
struct AddedView<'a> {
    /// Its identity, if it has one already.
    #[serde(skip_serializing_if = "Option::is_none")]
    id: Option<u64>,
    /// Its text.
    server: &'a str,
    /// Its address.
    name: String,
    /// Whether it is a backup.
    backup: bool,
    /// Its weight.
    weight: u64,
    /// Most connections at a time; 0 for no limit.
    max_conns: u64,
    /// Failures after which it is left alone.
    max_fails: u64,
    /// For how long; a time with its unit.
    fail_timeout: String,
    /// What it was told to be.
    state: &'static str,
}

/// A server that was set.
#[derive(Serialize)]
struct ChangedView<'a> {
    /// Its identity.
    id: u64,
    /// Its text.
    server: &'a str,
    /// What changed, by name.
    changes: ChangesView,
}

/// What changed of a server.
struct ChangesView(Vec<Difference>);

/// One thing that changed.
#[derive(Serialize)]
struct ChangeView<'a> {
    /// What it was.
    from: Scalar<'a>,
    /// What it is.
    to: Scalar<'a>,
}

/// A number, or a word.
#[derive(Serialize)]
#[serde(untagged)]
enum Scalar<'a> {
    /// A number.
    Number(u64),
    /// A word.
    Word(&'a str),
}

impl<'a> Scalar<'a> {
    /// What a text is.
    fn of(text: &'a str) -> Self {
        text.parse().map_or(Self::Word(text), Self::Number)
    }
}

impl Serialize for ChangesView {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(self.0.len()))?;
        for Difference { what, from, to } in &self.0 {
            map.serialize_entry(what, &ChangeView { from: Scalar::of(from), to: Scalar::of(to) })?;
        }
        map.end()
    }
}

impl Report<'_> {
    /// The reply in JSON: an object, or a list of them if the body named the upstreams.
    pub fn json(&self) -> Answer {
        let mut views = self.done.iter().map(|done| View::new(done, self.is_dry));
        if self.is_list { Answer::json(&views.collect::<Vec<_>>()) } else { Answer::json(&views.next()) }
    }

    /// The reply as text: a line for each upstream, and one for each of its servers that differs.
    pub fn text(&self) -> Answer {
        let mut text = String::new();
        for done in self.done {
            // Writing to a String cannot fail.
            let _ = write_text(&mut text, done, self.is_dry);
        }
        Answer::prose(text)
    }

    /// Adds the lines for the log.
    pub fn log(&self, mut answer: Answer, command: &ReplaceCommand) -> Answer {
        let (user, note) = (command.client.user.as_deref(), command.note.as_deref());
        let mut left = LINES;
        for done in self.done {
            let lines =
                Lines { upstream: &done.upstream, revision: done.revision, user, note, by_position: false };
            let all = done.entries.len() + done.removed.len() + done.added.len();
            for line in lines.of(&done.entries, &done.removed, done.added.iter()).take(left) {
                answer = answer.logged(Level::Notice, line);
            }
            let more = all.saturating_sub(left);
            left = left.saturating_sub(all);
            if more > 0 {
                let Replaced { upstream, revision, .. } = done;
                answer = answer.logged(
                    Level::Notice,
                    format_args!(
                        "upstream \"{upstream}\": {}, revision {revision}",
                        plural(more, "more server")
                    ),
                );
            }
        }
        answer
    }
}

/// The lines of an upstream.
fn write_text(out: &mut String, done: &Replaced, is_dry: bool) -> fmt::Result {
    let Replaced { upstream, revision, entries, removed, added, ids, unchanged, notices } = done;
    writeln!(
        out,
        "{}: {} added, {} removed, {} changed, {unchanged} unchanged, revision {revision}{}",
        escaped(upstream),
        added.len(),
        removed.len(),
        entries.len(),
        if is_dry { ", dry run" } else { "" }
    )?;
    for notice in notices {
        writeln!(out, "# {}", escaped(notice))?;
    }
    for Removal { id, server, .. } in removed {
        writeln!(out, "removed {} id={id}", escaped(&server.text))?;
    }
    let mut ids = ids.iter();
    for server in added {
        write!(out, "added {}", escaped(&server.text))?;
        ids.next().map_or(Ok(()), |id| write!(out, " id={id}"))?;
        out.push('\n');
    }
    for entry in entries {
        write!(out, "changed {} id={}", escaped(&entry.server.text), entry.id)?;
        for Difference { what, from, to } in entry.differences() {
            write!(out, ", {what} {from} -> {to}")?;
        }
        out.push('\n');
    }
    Ok(())
}

impl<'a> View<'a> {
    /// The view of an upstream.
    fn new(done: &'a Replaced, dry_run: bool) -> Self {
        let mut ids = done.ids.iter();
        Self {
            upstream: &done.upstream,
            revision: done.revision.0,
            dry_run,
            added: done.added.iter().map(|it| AddedView::new(it, ids.next().map(|id| id.0))).collect(),
            removed: done.removed.iter().map(RemovedView::from).collect(),
            changed: done.entries.iter().map(ChangedView::from).collect(),
            unchanged: done.unchanged,
            notices: &done.notices,
        }
    }
}

impl<'a> AddedView<'a> {
    /// The view of a new server.
    fn new(server: &'a Server, id: Option<u64>) -> Self {
        let Terms { admin, params } = server.terms;
        Self {
            id,
            server: &server.text,
            name: server.address.to_string(),
            backup: server.group.is_backup(),
            weight: params.weight,
            max_conns: params.max_conns,
            max_fails: params.max_fails,
            fail_timeout: Seconds(params.fail_timeout).to_string(),
            state: Admin::as_str(admin),
        }
    }
}

impl<'a> From<&'a Entry> for ChangedView<'a> {
    fn from(entry: &'a Entry) -> Self {
        Self { id: entry.id.0, server: &entry.server.text, changes: ChangesView(entry.differences()) }
    }
}

/// Whether a flag is not set.
#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde calls it by reference")]
fn is_false(flag: &bool) -> bool {
    !flag
}
