//! Replacing all servers of upstreams by lists: what differs is changed, and nothing else.
//!
//! The work is done in steps, none of which takes long but the look at an upstream and the commit, so that a long list
//! does not hold up other requests.

mod comparison;
#[cfg(test)]
mod tests;

use std::collections::HashMap;

use crate::model::client::Client;
use crate::model::id::{Revision, ServerId, UpstreamIndex};
use crate::model::list::{List, ListPlace, Listed};
use crate::model::server::Server;
use crate::model::snapshot::PLACEHOLDERS;

use super::access::{CommitError, Committed, Part, Upstreams};
use super::error::OpError;
use super::execute::ATTEMPTS;
use super::plan::{Entry, Plan, Removal};
use super::rules::check_note;
use comparison::{Comparison, Keys};

/// Servers that one step is about.
const CHUNK: usize = 128;

/// So many servers are too many for a look at them, or for a change of them, beside other work.
const MANY: usize = 1_000;

/// A replacement, and who asks for it.
#[derive(Clone, Debug)]
pub struct ReplaceCommand {
    /// The upstreams, and the servers that each is to have.
    pub lists: Vec<List>,
    /// Whether nothing is changed: the plan is all that is wanted.
    pub is_dry: bool,
    /// Whether the guards of the upstreams are set aside.
    pub force: bool,
    /// Who asks, for the log and the reason.
    pub client: Client,
    /// The client's words.
    pub note: Option<String>,
}

/// What became, or would become, of one upstream.
#[derive(Clone, Debug)]
pub struct Replaced {
    /// Its name.
    pub upstream: String,
    /// Its number of changes now.
    pub revision: Revision,
    /// The servers that were set, and what changed.
    pub entries: Vec<Entry>,
    /// The servers that left.
    pub removed: Vec<Removal>,
    /// The servers that are new.
    pub added: Vec<Server>,
    /// Their ids; none if nothing was changed yet.
    pub ids: Vec<ServerId>,
    /// How many servers are as they were.
    pub unchanged: usize,
    /// What the list has to be told of.
    pub notices: Vec<String>,
}

/// Why nothing was changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReplaceError {
    /// The name by which the upstream was called that this is about.
    pub upstream: Option<String>,
    /// The reason.
    pub error: OpError,
}

/// How far the work is.
pub enum Progress {
    /// There is more to do.
    More,
    /// There is more to do, and the next step, or the last one, takes longer: others should have a turn between them.
    Pause,
    /// All is done.
    Done(Vec<Replaced>),
}

/// A replacement that is under way. Dropped before it is done, it leaves everything as it was.
pub struct Replacement {
    /// What is asked for.
    command: ReplaceCommand,
    /// The upstreams, in the order of the lists.
    upstreams: Vec<UpstreamIndex>,
    /// What finds the servers of each list.
    keys: Vec<Keys>,
    /// What is to be done next.
    stage: Stage,
    /// What was planned, in the order of the lists.
    planned: Vec<Planned>,
    /// How often others were faster.
    lost: usize,
}

/// The plan of one upstream.
struct Planned {
    /// Its name.
    name: String,
    /// What is to be done.
    part: Part,
    /// How many servers stay as they are.
    unchanged: usize,
}

/// What is to be done next; numbers are places among the lists.
enum Stage {
    /// To look for servers that a list has twice, from this one on.
    Check(usize, usize),
    /// To look at an upstream.
    Look(usize),
    /// To find out what differs.
    Compare(usize, Box<Comparison>),
    /// To prepare the servers of an upstream.
    Prepare(usize),
    /// To make the change.
    Commit,
}

impl Replacement {
    /// Begins.
    ///
    /// # Errors
    ///
    /// If an upstream is not there, or there twice, or a list is empty.
    pub fn new(upstreams: &dyn Upstreams, command: ReplaceCommand) -> Result<Self, ReplaceError> {
        let failed = |list: Option<&List>, error| ReplaceError {
            upstream: list.and_then(|list| list.upstream.clone()),
            error,
        };
        check_note(command.note.as_deref()).map_err(|error| failed(None, error))?;
        let (mut found, mut keys) = (Vec::new(), Vec::new());
        // No more than the upstreams that there are.
        let mut places: HashMap<usize, ListPlace> = HashMap::new();
        for list in &command.lists {
            let name = list.upstream.as_deref().unwrap_or_default();
            let index = upstreams.find(name).map_err(|error| failed(Some(list), error))?;
            if let Some(place) = places.insert(index.0, list.place) {
                let twice = OpError::Twice { what: "upstream", text: name.to_owned(), place };
                return Err(failed(Some(list), twice.at(list.place)));
            }
            if list.servers.is_empty() && !command.force {
                return Err(failed(Some(list), OpError::EmptyList));
            }
            found.push(index);
            keys.push(Keys::with_room(list.servers.len()).map_err(|error| failed(Some(list), error))?);
        }
        let stage = Stage::Check(0, 0);
        Ok(Self { command, upstreams: found, keys, stage, planned: Vec::new(), lost: 0 })
    }

    /// Does a little more.
    ///
    /// # Errors
    ///
    /// Why nothing was changed.
    pub fn step(&mut self, upstreams: &dyn Upstreams) -> Result<Progress, ReplaceError> {
        match std::mem::replace(&mut self.stage, Stage::Look(0)) {
            Stage::Check(list, from) => self.check(list, from),
            Stage::Look(list) => self.look(upstreams, list),
            Stage::Compare(list, comparison) => self.compare(list, comparison),
            Stage::Prepare(part) => self.prepare(upstreams, part),
            Stage::Commit => self.commit(upstreams),
        }
    }

    /// How many servers differ, as far as is known.
    pub fn changes(&self) -> usize {
        self.planned.iter().map(|planned| planned.part.plan.len()).sum()
    }

    /// Whether the next step makes the change.
    pub fn is_ready(&self) -> bool {
        matches!(self.stage, Stage::Commit)
    }

    /// How to go on before a look at an upstream, which probably has as many servers as its list.
    fn before_look(&self, list: usize) -> Progress {
        progress(self.servers(list).len())
    }

    /// The failure of one upstream.
    fn failure(&self, list: usize, error: OpError) -> ReplaceError {
        ReplaceError { upstream: self.command.lists.get(list).and_then(|list| list.upstream.clone()), error }
    }

    /// The servers of a list.
    fn servers(&self, list: usize) -> &[Listed] {
        self.command.lists.get(list).map_or(&[], |list| &list.servers)
    }

    /// Looks for servers that a list has twice.
    fn check(&mut self, list: usize, from: usize) -> Result<Progress, ReplaceError> {
        let (Some(of), Some(keys)) = (self.command.lists.get(list), self.keys.get_mut(list)) else {
            self.stage = Stage::Look(0);
            return Ok(self.before_look(0));
        };
        let end = from.saturating_add(CHUNK).min(of.servers.len());
        if let Err(error) = keys.add(&of.servers, from..end) {
            return Err(self.failure(list, error));
        }
        self.stage = if end < of.servers.len() { Stage::Check(list, end) } else { Stage::Check(list + 1, 0) };
        Ok(Progress::More)
    }

    /// Looks at an upstream; when all were compared, begins to prepare.
    fn look(&mut self, upstreams: &dyn Upstreams, list: usize) -> Result<Progress, ReplaceError> {
        let Some(upstream) = self.upstreams.get(list) else {
            if self.command.is_dry {
                let planned = std::mem::take(&mut self.planned).into_iter();
                return Ok(self.done(planned.map(Planned::untouched).collect()));
            }
            self.stage = Stage::Prepare(0);
            return Ok(Progress::More);
        };
        let whole = match upstreams.whole(*upstream) {
            Err(OpError::Busy) => return self.again(list, list),
            whole => whole.map_err(|error| self.failure(list, error))?,
        };
        let ReplaceCommand { client, note, .. } = &self.command;
        let plan = Plan::new(whole.revision, whole.membership, client, note.as_deref());
        let comparison = Comparison::new(whole, self.servers(list).len(), plan);
        let comparison = comparison.map_err(|error| self.failure(list, error))?;
        let progress = progress(comparison.peers());
        self.stage = Stage::Compare(list, Box::new(comparison));
        Ok(progress)
    }

    /// Looks again, from a list on, unless others were faster too often.
    fn again(&mut self, lost: usize, from: usize) -> Result<Progress, ReplaceError> {
        self.lost += 1;
        if self.lost >= ATTEMPTS {
            return Err(self.failure(lost, OpError::Busy));
        }
        self.stage = Stage::Look(from);
        Ok(Progress::Pause)
    }

    /// Compares a list with its upstream.
    fn compare(&mut self, list: usize, mut comparison: Box<Comparison>) -> Result<Progress, ReplaceError> {
        let (Some(keys), Some(upstream)) = (self.keys.get(list), self.upstreams.get(list).copied()) else {
            return Ok(Progress::More);
        };
        let done =
            comparison.step(self.servers(list), keys, CHUNK).map_err(|error| self.failure(list, error));
        if !done? {
            self.stage = Stage::Compare(list, comparison);
            return Ok(Progress::More);
        }
        let name = comparison.name().to_owned();
        let (plan, unchanged) =
            comparison.finish(self.command.force).map_err(|error| self.failure(list, error))?;
        self.planned.push(Planned { name, part: Part { upstream, plan, ready: None }, unchanged });
        self.stage = Stage::Look(list + 1);
        Ok(self.before_look(list + 1))
    }

    /// Makes the servers of an upstream ready.
    fn prepare(&mut self, upstreams: &dyn Upstreams, list: usize) -> Result<Progress, ReplaceError> {
        let Some(planned) = self.planned.get_mut(list) else {
            self.stage = Stage::Commit;
            let changes = self.planned.iter().map(|planned| planned.part.plan.len());
            return Ok(progress(changes.sum()));
        };
        let ready = planned.part.plan.is_empty() || {
            let ready = upstreams.prepare(&mut planned.part, CHUNK);
            ready.map_err(|error| self.failure(list, error))?
        };
        self.stage = Stage::Prepare(if ready { list + 1 } else { list });
        Ok(Progress::More)
    }

    /// Makes the change; upstreams in which nothing differs are left out of it.
    fn commit(&mut self, upstreams: &dyn Upstreams) -> Result<Progress, ReplaceError> {
        let (mut same, mut changing) = (Vec::new(), Vec::new());
        for (place, planned) in std::mem::take(&mut self.planned).into_iter().enumerate() {
            let list = if planned.part.plan.is_empty() { &mut same } else { &mut changing };
            list.push((place, planned));
        }
        let names: Vec<_> =
            changing.iter().map(|(place, it)| (*place, it.name.clone(), it.unchanged)).collect();
        let mut parts: Vec<_> = changing.into_iter().map(|(_, planned)| planned.part).collect();
        let committed = if parts.is_empty() { Ok(Vec::new()) } else { upstreams.commit_all(&mut parts) };
        let of = |at: usize| names.get(at).map_or(at, |(place, _, _)| *place);
        let committed = match committed {
            Ok(committed) => committed,
            Err((at, CommitError::Refused(error))) => return Err(self.failure(of(at), error)),
            Err((at, CommitError::Moved)) => return self.again(of(at), 0),
        };
        let mut done: Vec<_> =
            same.into_iter().map(|(place, planned)| (place, planned.untouched())).collect();
        for ((part, committed), (place, name, unchanged)) in parts.into_iter().zip(committed).zip(names) {
            let planned = Planned { name, part, unchanged };
            let Committed { revision, added, .. } = committed;
            done.push((place, Replaced { revision, ids: added, ..planned.untouched() }));
        }
        done.sort_by_key(|(place, _)| *place);
        Ok(self.done(done.into_iter().map(|(_, replaced)| replaced).collect()))
    }

    /// The end: what became of each upstream, in the order of the lists.
    fn done(&self, mut all: Vec<Replaced>) -> Progress {
        for (list, replaced) in all.iter_mut().enumerate() {
            let servers = self.servers(list);
            replaced.notices = self.keys.get(list).map(|keys| keys.notices(servers)).unwrap_or_default();
            let is_alone = replaced.unchanged == 0 && replaced.entries.is_empty();
            if let (true, [removed]) = (is_alone, replaced.removed.as_slice())
                && PLACEHOLDERS.contains(&removed.server.text.as_str())
            {
                // What stood for no server was none.
                replaced.removed.clear();
            }
        }
        Progress::Done(all)
    }
}

/// How to go on beside a step that is about so many servers.
fn progress(servers: usize) -> Progress {
    if servers < MANY { Progress::More } else { Progress::Pause }
}

impl Planned {
    /// What would become of the upstream.
    fn untouched(self) -> Replaced {
        let Plan { revision, entries, removed, added, .. } = self.part.plan;
        let (upstream, unchanged) = (self.name, self.unchanged);
        Replaced {
            upstream,
            revision,
            entries,
            removed,
            added,
            ids: Vec::new(),
            unchanged,
            notices: Vec::new(),
        }
    }
}
