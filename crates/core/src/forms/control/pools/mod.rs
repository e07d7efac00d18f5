//! The form of lua-resty-upstream's example: `/pools` shows the pools, `/down_host/POOL/HOST` and `/up_host/POOL/HOST`
//! take a host of one down and bring it up. Its pools are the upstreams that some upstream has as its `pool`.
//!
//! The words are in the path, at the end of it. A change is answered with nothing, an error with its words as one JSON
//! string.

mod list;
#[cfg(test)]
mod tests;

use crate::model::id::ServerId;
use crate::model::log::Level;
use crate::model::query::{Query, quoted};
use crate::model::server::Change;
use crate::model::state::Admin;
use crate::ops::{Action, Command, OpError, Selector, Upstreams};

use super::super::accept::{FORMAT, Format};
use super::super::arguments::{flag, only};
use super::super::call::Call;
use super::super::error::{Kind, Refusal};
use super::super::respond::Answer;
use super::super::settings::{Dialect, HostErrors};
use super::change::{Shown, carry_out};
use super::json::ServersView;
use super::words::{given, number};

/// The last word of the path that shows the pools.
const POOLS: &str = "pools";

/// The word of a path that takes a host down.
const DOWN: &str = "down_host";

/// The word of a path that brings a host up.
const UP: &str = "up_host";

/// How many words at the end of a path are looked at for these: there may be one more than there should.
const END: usize = 4;

/// The arguments of a change.
const KNOWN: [&str; 3] = ["force", "note", FORMAT];

/// What a path asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PathOrder {
    /// To see all pools.
    Show,
    /// To change a host.
    Set {
        /// What it is to be.
        admin: Admin,
        /// Name of the pool.
        pool: String,
        /// Its number, or its text.
        host: String,
    },
    /// A change, of what is not said as it must be.
    Malformed,
}

/// Why nothing was done.
enum HostRefusal {
    /// There is no such pool.
    NoPool,
    /// It has no such host.
    NoHost,
    /// Because of what all forms have in common.
    Common(Refusal),
}

/// What a path asks for in this form; nothing if it has another.
pub fn order(uri: &[u8], dialect: Dialect) -> Option<PathOrder> {
    if dialect != Dialect::Any {
        return None;
    }
    let uri = String::from_utf8_lossy(uri);
    let words: Vec<&str> = uri.split('/').collect();
    match *words.as_slice() {
        [.., verb, pool, host] if !pool.is_empty() && !host.is_empty() && admin(verb).is_some() => {
            let admin = admin(verb).unwrap_or_default();
            Some(PathOrder::Set { admin, pool: pool.to_owned(), host: host.to_owned() })
        }
        ref words if words.iter().rev().take(END).any(|word| admin(word).is_some()) => {
            Some(PathOrder::Malformed)
        }
        [.., POOLS] => Some(PathOrder::Show),
        _ => None,
    }
}

/// What the verb of a path makes of a host; nothing if it is none.
fn admin(verb: &str) -> Option<Admin> {
    match verb {
        DOWN => Some(Admin::Down),
        UP => Some(Admin::Up),
        _ => None,
    }
}

/// The refusal of a request in this form.
pub fn refused(refusal: &Refusal, format: Format) -> Answer {
    match format {
        Format::Json => Answer::refused(refusal, format),
        Format::Text => Answer::refused_in_a_string(refusal),
    }
}

/// The answer to a request in this form.
pub fn answer(
    call: &Call<'_>,
    query: &Query,
    upstreams: &dyn Upstreams,
    format: Format,
    order: &PathOrder,
    errors: HostErrors,
) -> Answer {
    match order {
        PathOrder::Malformed => {
            let uri = quoted(call.uri);
            let text =
                format!("no such URI {uri}, it must end in \"/{DOWN}/POOL/HOST\" or \"/{UP}/POOL/HOST\"");
            refused(&Refusal::new(Kind::PathNotFound, text), format)
        }
        PathOrder::Show => match only(query, &[FORMAT]).and_then(|()| list::view(upstreams, call.now)) {
            Ok(view) => Answer::bare_json(&view),
            Err(refusal) => refused(&refusal, format),
        },
        PathOrder::Set { admin, pool, host } => match set(call, query, upstreams, format, *admin, pool, host)
        {
            Ok(answer) => answer,
            Err(failure) => failed(failure, *admin, pool, format, errors),
        },
    }
}

/// Changes a host.
fn set(
    call: &Call<'_>,
    query: &Query,
    upstreams: &dyn Upstreams,
    format: Format,
    admin: Admin,
    pool: &str,
    host: &str,
) -> Result<Answer, HostRefusal> {
    only(query, &KNOWN)?;
    let force = flag(query, "force")?;
    let upstream = list::find(upstreams, pool)?;
    let command = Command {
        upstream,
        servers: vec![selector(host).ok_or(HostRefusal::NoHost)?],
        action: Action::Set(Change { admin: Some(admin), params: Vec::new() }),
        force,
        client: call.client.clone(),
        note: given(query, "note").map(str::to_owned),
    };
    let done = carry_out(call, upstreams, &command, Shown::Chosen)?;
    let answer = match format {
        Format::Json => Answer::json(&ServersView::singly(&done.snapshot, &done.peers(), call.now)),
        Format::Text => Answer::text(String::new()),
    };
    Ok(done.log(answer))
}

/// The server that a host means: by its number, from 1 in the order of the configuration, or by its text. None if the
/// number is that of no server.
fn selector(host: &str) -> Option<Selector> {
    if !host.bytes().all(|byte| byte.is_ascii_digit()) {
        return Some(Selector::Server(host.to_owned()));
    }
    number::<u64>(host)?.checked_sub(1).map(|id| Selector::Id(ServerId(id)))
}

/// The answer where nothing was done. In JSON it is that of all forms.
fn failed(failure: HostRefusal, admin: Admin, pool: &str, format: Format, errors: HostErrors) -> Answer {
    let (words, today) = match failure {
        HostRefusal::Common(refusal) => return refused(&refusal, format),
        // The one who asks to bring a host up is not told the name.
        HostRefusal::NoPool if admin == Admin::Up => {
            ("Pool not found".to_owned(), OpError::UpstreamNotFound(pool.to_owned()))
        }
        HostRefusal::NoPool => (format!("Pool {pool} not found"), OpError::UpstreamNotFound(pool.to_owned())),
        HostRefusal::NoHost => ("Host not found".to_owned(), OpError::ServerNotFound(String::new())),
    };
    let line = format!("upstream control: {words}");
    let answer = match format {
        Format::Json => Answer::refused(&today.into(), format),
        Format::Text => Answer::refused_in_a_string(&Refusal::new(Kind::NoSuchHost(errors), words)),
    };
    answer.logged_instead(Level::Error, line)
}

impl From<Refusal> for HostRefusal {
    fn from(refusal: Refusal) -> Self {
        Self::Common(refusal)
    }
}

impl From<OpError> for HostRefusal {
    fn from(error: OpError) -> Self {
        match error {
            OpError::UpstreamNotFound(_) => Self::NoPool,
            OpError::ServerNotFound(_) | OpError::NearlyFound { .. } => Self::NoHost,
            error => Self::Common(error.into()),
        }
    }
}
