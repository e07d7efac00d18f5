//! `replace=`: all servers of an upstream, or of several, as the list in the body has them. What differs is changed, and
//! nothing else is touched.

mod json;
mod reply;
#[cfg(test)]
mod tests;

use crate::http::Method;
use crate::model::list::text;
use crate::model::list::{Fault, List, ListError, ListPlace};
use crate::model::query::{Query, quoted};
use crate::ops::replace::{ReplaceCommand, ReplaceError};
use crate::ops::{OpError, Progress, Replaced, Replacement, Upstreams};

use super::super::accept::{self, FORMAT, Format};
use super::super::arguments::{flag, only};
use super::super::call::Call;
use super::super::error::{Kind, Refusal};
use super::super::media::is_media;
use super::super::respond::{self, Answer};
use super::super::scope::Scope;
use super::super::settings::Dialect;
use super::words::given;

/// Largest list, in bytes: that of some 200 thousand servers.
pub const BODY_LIMIT: usize = 16 << 20;

/// Servers that are read before the clock is looked at again.
const CHUNK: usize = 64;

/// The media type of lists in the words of nginx's configuration.
const TEXT: &str = "text/plain";

/// The media type of JSON.
const JSON: &str = "application/json";

/// The arguments.
const KNOWN: [&str; 6] = ["replace", "upstream", "dry_run", "force", "note", FORMAT];

/// Whether arguments ask for a replacement.
pub fn is_meant(query: &Query, dialect: Dialect) -> bool {
    dialect == Dialect::Any && query.has("replace")
}

/// The refusal of `replace=` where it cannot be done.
pub fn misplaced(method: Method) -> Refusal {
    match method {
        Method::Post => Refusal::argument("replace: must be in the query string, the body is the list"),
        _ => Refusal::new(Kind::MethodNotAllowed { allow: "POST" }, "replace: only POST allowed"),
    }
}

/// A replacement that is under way.
pub struct Replacing {
    /// What is left to do; none at the end.
    stage: Option<Phase>,
    /// Name of the upstream; none if the list has the names.
    upstream: Option<String>,
    /// What is asked for, without the lists.
    command: ReplaceCommand,
    /// Form of the reply.
    format: Format,
    /// The only upstream, beside its pools, that the location knows; none if it knows all.
    scope: Option<String>,
}

/// What is left to do.
enum Phase {
    /// To read a list in nginx's words.
    Text(text::TextReader),
    /// To read a list in JSON.
    Json(json::JsonReader),
    /// To carry it out.
    Run(Replacement),
}

/// What comes after a step.
enum Next {
    /// More, at once if there is time.
    More,
    /// More, after others had a turn.
    Pause,
    /// The answer.
    Answer(Answer),
}

/// Begins, with the whole body, in a location that knows the upstream `scope` and its pools, or all.
///
/// # Errors
///
/// What is wrong with the arguments, or with the form of the body.
pub fn begin(
    call: &Call<'_>,
    query: &Query,
    body: Vec<u8>,
    scope: Option<String>,
) -> Result<Replacing, Refusal> {
    let format = accept::for_control(query, call.accept)?;
    only(query, &KNOWN)?;
    flag(query, "replace")?;
    let command = ReplaceCommand {
        lists: Vec::new(),
        is_dry: flag(query, "dry_run")?,
        force: flag(query, "force")?,
        client: call.client.clone(),
        note: given(query, "note").map(str::to_owned),
    };
    let stage = if is_media(call.content_type, JSON) {
        Phase::Json(json::JsonReader::new(body))
    } else if call.content_type.is_none() || is_media(call.content_type, TEXT) {
        Phase::Text(text::TextReader::new(body))
    } else {
        // What curl says of a body unless it is told otherwise is a form.
        let given = quoted(call.content_type.unwrap_or_default());
        let words =
            format!("replace: unsupported Content-Type {given}, the list must be \"{TEXT}\" or \"{JSON}\"");
        return Err(Refusal::new(Kind::UnsupportedBody, words));
    };
    let upstream = given(query, "upstream").map(str::to_owned);
    Ok(Replacing { stage: Some(stage), upstream, command, format, scope })
}

impl Replacing {
    /// Works on until all is done, or it is time to stop. The answer, when all is done. A look at an upstream and the
    /// change itself are not cut.
    pub fn advance(
        &mut self,
        upstreams: Option<&dyn Upstreams>,
        is_time: impl Fn() -> bool,
    ) -> Option<Answer> {
        let Some(upstreams) = upstreams else {
            return Some(Answer::refused(&Refusal::no_memory_zone(), self.format));
        };
        let upstreams = Scope::new(upstreams, self.scope.as_deref());
        loop {
            match self.step(&upstreams) {
                Ok(Next::Answer(answer)) => return Some(answer),
                Ok(Next::Pause) => return None,
                // Without memory for a step, whoever calls for the next slice finds out.
                Ok(Next::More) if is_time() => return None,
                Ok(Next::More) => {}
                Err(refusal) => return Some(Answer::refused(&refusal, self.format)),
            }
        }
    }

    /// Does a little more.
    fn step(&mut self, upstreams: &dyn Upstreams) -> Result<Next, Refusal> {
        let stage = self.stage.take().ok_or_else(|| Refusal::new(Kind::Internal, "nothing is left to do"))?;
        let lists = match stage {
            Phase::Text(mut reader) => {
                if read(|| reader.step())? {
                    self.stage = Some(Phase::Text(reader));
                    return Ok(Next::More);
                }
                reader.into_lists()
            }
            Phase::Json(mut reader) => {
                if read(|| reader.step())? {
                    self.stage = Some(Phase::Json(reader));
                    return Ok(Next::More);
                }
                reader.into_lists()
            }
            Phase::Run(mut work) => {
                // A change that is made must be told.
                let _room =
                    if work.is_ready() { Some(respond::room(upstreams, work.changes())?) } else { None };
                let progress = work.step(upstreams).map_err(|error| self.refusal(error))?;
                let next = match progress {
                    Progress::Done(done) => return Ok(Next::Answer(self.reply(upstreams, &done)?)),
                    Progress::More => Next::More,
                    Progress::Pause => Next::Pause,
                };
                self.stage = Some(Phase::Run(work));
                return Ok(next);
            }
        };
        let command = ReplaceCommand { lists: self.named(lists)?, ..self.command.clone() };
        let work = Replacement::new(upstreams, command).map_err(|error| self.refusal(error))?;
        self.stage = Some(Phase::Run(work));
        Ok(Next::More)
    }

    /// The lists, each with the name of its upstream: in the body or in the arguments.
    fn named(&self, mut lists: Vec<List>) -> Result<Vec<List>, Refusal> {
        let Some(upstream) = &self.upstream else {
            let has_names = !lists.is_empty() && lists.iter().all(|list| list.upstream.is_some());
            return if has_names { Ok(lists) } else { Err(Refusal::argument("upstream required")) };
        };
        if lists.is_empty() {
            lists.push(List { place: ListPlace::line(1), upstream: None, servers: Vec::new() });
        }
        for list in &mut lists {
            if list.upstream.is_some() {
                let text =
                    format!("{}: a list with names of upstreams and \"upstream=\" at once", list.place);
                return Err(Refusal::argument(format!("{text} are not allowed")));
            }
            list.upstream = Some(upstream.clone());
        }
        Ok(lists)
    }

    /// The refusal of what cannot be done. Where several upstreams are meant, it says which it is about.
    fn refusal(&self, error: ReplaceError) -> Refusal {
        let ReplaceError { upstream, error } = error;
        let refusal = Refusal::from(error.clone());
        match (upstream, &self.upstream, error) {
            // These name it themselves.
            (_, _, OpError::UpstreamNotFound(_) | OpError::SharedZone { .. }) => refusal,
            (Some(upstream), None, error) if !matches!(error, OpError::At(..)) => {
                let name = quoted(upstream.as_bytes());
                Refusal::new(refusal.kind, format!("upstream {name}: {}", refusal.text))
            }
            _ => refusal,
        }
    }

    /// The reply, and the lines for the log.
    ///
    /// # Errors
    ///
    /// There is no memory for what would be done.
    fn reply(&self, upstreams: &dyn Upstreams, done: &[Replaced]) -> Result<Answer, Refusal> {
        let count = |done: &Replaced| done.entries.len() + done.removed.len() + done.added.len();
        let _room = if self.command.is_dry {
            Some(respond::room(upstreams, done.iter().map(count).sum())?)
        } else {
            None
        };
        let reply = reply::Report { done, is_dry: self.command.is_dry, is_list: self.upstream.is_none() };
        let answer = match self.format {
            Format::Json => reply.json(),
            Format::Text => reply.text(),
        };
        Ok(if self.command.is_dry { answer } else { reply.log(answer, &self.command) })
    }
}

/// Reads some statements. False at the end of the list.
fn read(mut step: impl FnMut() -> Result<bool, ListError>) -> Result<bool, Refusal> {
    for _ in 0..CHUNK {
        let more = step().map_err(|error| match error.fault {
            Fault::NoMemory => OpError::NoMemory.into(),
            _ => Refusal::argument(error.to_string()),
        });
        if !more? {
            return Ok(false);
        }
    }
    Ok(true)
}
