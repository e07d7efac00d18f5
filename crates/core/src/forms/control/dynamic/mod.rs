//! The form of ngx_dynamic_upstream: `upstream=` and what to do with which of its servers. The reply to a change is the
//! whole upstream. With `id=`, and throughout in a location with `upstream_conf`, the lines are those of NGINX Plus's
//! directive of that name, and a change is answered with the server that it was about.

use crate::model::log::{Level, escaped, plural};
use crate::model::query::Query;
use crate::model::snapshot::{Peer, Snapshot};
use crate::ops::{Action, Command, OpError, Selector, Upstreams};

use super::super::accept::Format;
use super::super::call::Call;
use super::super::error::{Kind, Refusal};
use super::super::respond::{self, Answer};
use super::super::settings::Dialect;
use super::change::{Done, Shown, carry_out};
use super::everywhere;
use super::json::ServersView;
use super::lines::{Style, listing, pool_lines};
use super::order::{Choice, Order};
use super::words::given;

/// What is said in place of the lines of an upstream whose last server was removed: a comment, for who reads lines.
const NONE_LEFT: &str = "# no servers left\n";

/// The answer to a request in this form.
///
/// # Errors
///
/// Why nothing was done.
pub fn answer(
    call: &Call<'_>,
    query: &Query,
    upstreams: &dyn Upstreams,
    format: Format,
    dialect: Dialect,
) -> Result<Answer, Refusal> {
    if dialect == Dialect::UpstreamConf && given(query, "upstream").is_none() {
        // Old programs call without arguments to find out whether the directive is there: by status and log line.
        let text = "missing \"upstream\" argument";
        return Ok(Answer::refused(&Refusal::argument(text), format).logged_instead(Level::Error, text));
    }
    let order = Order::parse(query, dialect)?;
    if dialect == Dialect::Any && order.upstream == everywhere::ALL {
        return everywhere::answer(call, order, upstreams, format);
    }
    let is_numbered = dialect == Dialect::UpstreamConf || matches!(order.choice, Choice::Id(_));
    let style = match order.verbose {
        _ if is_numbered => Style::Numbered,
        true => Style::Verbose,
        false => Style::Plain,
    };
    let Some(action) = order.action.clone() else {
        return list(call, &order, upstreams, format, style);
    };
    let command = Command {
        upstream: upstreams.find(&order.upstream)?,
        servers: order.choice.selectors(),
        action,
        force: order.force,
        client: call.client.clone(),
        note: order.note.clone(),
    };
    match carry_out(call, upstreams, &command, shown(&order, format, style)) {
        Ok(done) => {
            let mut answer = changed(call, &order, &done, format, style);
            if let (Choice::One(Selector::Position(position)), Format::Text) = (&order.choice, format) {
                answer.response.body.extend(meant(*position, &done).into_bytes());
            }
            Ok(done.log(answer))
        }
        Err(error) if dialect == Dialect::Any && is_so_already(&command.action, &error) => match format {
            // A reply with this status has no body.
            Format::Text => Err(Refusal::new(Kind::NothingToDo, error.to_string())),
            Format::Json => {
                let snapshot = upstreams.only(command.upstream, &[])?;
                Ok(Answer::json(&ServersView::unchanged(&snapshot, error.to_string())))
            }
        },
        Err(error) => Err(error.into()),
    }
}

/// A comment that says which server a position meant: it means another one when a server before it has left.
fn meant(position: usize, done: &Done) -> String {
    let chosen = done.peers().into_iter().filter_map(|peer| Some((&*peer.server, peer.id?)));
    let left = done.removed.iter().map(|removal| (removal.server.text.as_str(), removal.id));
    let line = |(server, id)| format!("# peer={position} is server {} id={id}\n", escaped(server));
    chosen.chain(left).map(line).collect()
}

/// Whether ngx_dynamic_upstream answers such an error as if there were nothing to do.
fn is_so_already(action: &Action, error: &OpError) -> bool {
    match action {
        Action::Add(_) => matches!(error, OpError::Exists(_)),
        Action::Remove => matches!(error, OpError::ServerNotFound(_) | OpError::NearlyFound { .. }),
        _ => false,
    }
}

/// Lists the upstream, or the server with an id. Other choices without a change choose nothing.
fn list(
    call: &Call<'_>,
    order: &Order,
    upstreams: &dyn Upstreams,
    format: Format,
    style: Style,
) -> Result<Answer, Refusal> {
    let snapshot = upstreams.look(&order.upstream)?;
    let _room = respond::room(upstreams, snapshot.peers.len())?;
    if let Choice::Id(id) = order.choice {
        let selector = Selector::Id(id);
        let peers: Vec<_> = snapshot.peers.iter().filter(|peer| selector.chooses(peer)).collect();
        if peers.is_empty() {
            return Err(OpError::ServerNotFound(selector.text()).into());
        }
        return Ok(singly(&snapshot, &peers, style, format, call));
    }
    Ok(match format {
        Format::Json => Answer::json(&ServersView::list(&snapshot, &snapshot.peers, call.now)),
        Format::Text => match &snapshot.pools {
            Some(pools) => Answer::prose(pool_lines(pools)),
            None => Answer::text(listing(&snapshot.peers, style)),
        },
    })
}

/// How much of the upstream the reply to a change shows.
fn shown(order: &Order, format: Format, style: Style) -> Shown {
    match (&order.action, format) {
        _ if order.brief => Shown::Chosen,
        (Some(Action::Remove), _) => Shown::All,
        (_, Format::Json) => Shown::Chosen,
        (_, Format::Text) if style == Style::Numbered => Shown::Chosen,
        (_, Format::Text) => Shown::All,
    }
}

/// The reply to a change.
fn changed(call: &Call<'_>, order: &Order, done: &Done, format: Format, style: Style) -> Answer {
    let (snapshot, peers) = (&done.snapshot, done.peers());
    match (&order.action, format) {
        (Some(Action::Remove), Format::Json) if order.brief => {
            Answer::json(&ServersView::removed_of(snapshot, done.removed.first(), done.left))
        }
        (Some(Action::Remove), Format::Text) if order.brief && done.left > 0 => {
            Answer::text(format!("# {} left\n", plural(done.left, "server")))
        }
        (Some(Action::Remove), Format::Json) => {
            Answer::json(&ServersView::removed(snapshot, done.removed.first(), call.now))
        }
        (Some(Action::Remove), Format::Text) if snapshot.peers.is_empty() => {
            Answer::text(NONE_LEFT.to_owned())
        }
        (Some(Action::Remove), Format::Text) => Answer::text(listing(&snapshot.peers, style)),
        _ if style == Style::Numbered => singly(snapshot, &peers, style, format, call),
        // These are the chosen ones only, if the reply is to be brief.
        (_, Format::Text) => Answer::text(listing(&snapshot.peers, style)),
        (_, Format::Json) if matches!(order.choice, Choice::Several(_)) => {
            Answer::json(&ServersView::list(snapshot, peers, call.now))
        }
        (_, Format::Json) => Answer::json(&ServersView::singly(snapshot, &peers, call.now)),
    }
}

/// The reply about a server that was addressed singly.
fn singly(snapshot: &Snapshot, peers: &[&Peer], style: Style, format: Format, call: &Call<'_>) -> Answer {
    match format {
        Format::Json => Answer::json(&ServersView::singly(snapshot, peers, call.now)),
        Format::Text => Answer::text(listing(peers.iter().copied(), style)),
    }
}

#[cfg(test)]
mod member_tests;
#[cfg(test)]
mod tests;
