//! `upstream=*`: one host in all upstreams. A server that shuts down takes itself out of wherever it is used, without
//! knowing where that is.

use serde::Serialize;

use crate::model::id::UpstreamIndex;
use crate::model::log::{Level, escaped, plural};
use crate::model::query::quoted;
use crate::model::server::Change;
use crate::ops::{Action, Command, OpError, Selector, Upstreams};

use super::super::accept::Format;
use super::super::call::Call;
use super::super::error::{Kind, Refusal};
use super::super::peer::PeerView;
use super::super::respond::{self, Answer, ErrorBody};
use super::change::{Done, Shown, carry_out};
use super::order::{Choice, Order};

/// The name that stands for all upstreams.
pub const ALL: &str = "*";

/// What came of it in one upstream.
struct Told {
    /// Name of the upstream.
    upstream: String,
    /// What was done, or why nothing was.
    result: Result<Done, Refusal>,
}

/// The same in JSON.
#[derive(Serialize)]
struct ToldView<'a> {
    /// Name of the upstream.
    upstream: &'a str,
    /// Its number of changes.
    #[serde(skip_serializing_if = "Option::is_none")]
    revision: Option<u64>,
    /// How many servers are not as they were.
    #[serde(skip_serializing_if = "Option::is_none")]
    changed: Option<usize>,
    /// The servers of the host.
    #[serde(skip_serializing_if = "Option::is_none")]
    servers: Option<Vec<PeerView<'a>>>,
    /// Why nothing was done.
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<ErrorBody<'a>>,
}

/// Brings a host up or down, or drains it, in each upstream that can be changed: there all of its servers, or none.
///
/// # Errors
///
/// If something else is asked for, or no upstream has the host.
pub fn answer(
    call: &Call<'_>,
    order: Order,
    upstreams: &dyn Upstreams,
    format: Format,
) -> Result<Answer, Refusal> {
    let (host, change) = wanted(order.choice, order.action)?;
    let selector = Selector::Host(host);
    let mut found = Vec::new();
    for upstream in (0..upstreams.count()).map(UpstreamIndex) {
        match upstreams.snapshot(upstream) {
            Ok(snapshot)
                if snapshot.fixed.is_none() && snapshot.peers.iter().any(|peer| selector.chooses(peer)) =>
            {
                found.push((upstream, snapshot.name));
            }
            // This one is not for whoever asks.
            Ok(_) | Err(OpError::UpstreamNotFound(_)) => {}
            Err(error) => return Err(error.into()),
        }
    }
    // Changes that were made must be told.
    let _room = respond::room(upstreams, found.len())?;
    let mut told = Vec::new();
    for (upstream, name) in found {
        let command = Command {
            upstream,
            servers: vec![selector.clone()],
            action: Action::Set(change.clone()),
            force: order.force,
            client: call.client.clone(),
            note: order.note.clone(),
        };
        match carry_out(call, upstreams, &command, Shown::Chosen) {
            // It was removed since.
            Err(OpError::ServerNotFound(_)) => {}
            // This worker does not know all that are meant.
            Err(error @ OpError::Reloaded) => return Err(error.into()),
            result => told.push(Told { upstream: name, result: result.map_err(Refusal::from) }),
        }
    }
    if told.is_empty() {
        return Err(Refusal::new(
            Kind::UpstreamNotFound,
            format!("no upstream has this server: {}", quoted(selector.text().as_bytes())),
        ));
    }
    Ok(reply(call, &told, format))
}

/// The host and what it is to be.
fn wanted(choice: Choice, action: Option<Action>) -> Result<(String, Change), Refusal> {
    match (choice, action) {
        (Choice::One(Selector::Server(host)), Some(Action::Set(change))) if change.params.is_empty() => {
            Ok((host, change))
        }
        _ => Err(Refusal::argument("upstream=* is only for up, down and drain of a server")),
    }
}

/// The reply.
fn reply(call: &Call<'_>, told: &[Told], format: Format) -> Answer {
    let answer = match format {
        Format::Json => Answer::json(&told.iter().map(|told| told.view(call)).collect::<Vec<_>>()),
        Format::Text => Answer::prose(told.iter().map(Told::line).collect()),
    };
    let answer = told.iter().fold(answer, |answer, told| match &told.result {
        Ok(done) => done.log(answer),
        Err(refusal) => answer.logged(
            Level::Info,
            format_args!("upstream control: upstream \"{}\" refused: {}", told.upstream, refusal.text),
        ),
    });
    if told.iter().any(|told| told.result.is_err()) {
        answer.with_status_of(Kind::PartlyDone)
    } else {
        answer
    }
}

impl Told {
    /// `UPSTREAM: N servers changed`, or why not.
    fn line(&self) -> String {
        let upstream = escaped(&self.upstream);
        match &self.result {
            Ok(done) if done.changed == 0 => {
                format!("{upstream}: {} unchanged\n", plural(done.peers().len(), "server"))
            }
            Ok(done) => format!("{upstream}: {} changed\n", plural(done.changed, "server")),
            Err(refusal) => format!("{upstream}: {}\n", refusal.text),
        }
    }

    /// The same in JSON.
    fn view<'a>(&'a self, call: &Call<'_>) -> ToldView<'a> {
        let done = self.result.as_ref().ok();
        let views = |done: &'a Done| done.peers().into_iter().map(|peer| PeerView::new(peer, call.now));
        ToldView {
            upstream: &self.upstream,
            revision: done.map(|done| done.snapshot.revision.0),
            changed: done.map(|done| done.changed),
            servers: done.map(|done| views(done).collect()),
            error: self.result.as_ref().err().map(ErrorBody::from),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::super::fake::{self, Fake};
    use super::super::super::settings::Settings;
    use super::super::answer;
    use super::*;
    use crate::model::snapshot::StaticReason;
    use crate::model::state::Admin;
    use crate::ops::Guard;

    /// Three upstreams with the host 10.0.0.1, one of them static, and one without.
    fn upstreams() -> Fake {
        let mut fixed = fake::upstream("fixed", vec![fake::peer(0, "10.0.0.1:80")]);
        fixed.fixed = Some(StaticReason::NoZone { kilobytes: 64 });
        Fake::new(vec![
            fake::upstream("a", vec![fake::peer(0, "10.0.0.1:80"), fake::peer(1, "10.0.0.2:80")]),
            fake::upstream("other", vec![fake::peer(0, "10.0.0.3:80")]),
            fixed,
            fake::upstream(
                "b",
                vec![
                    fake::peer(0, "10.0.0.1:80"),
                    fake::peer(1, "10.0.0.1:81"),
                    fake::peer(2, "10.0.0.2:81"),
                    fake::backup(3, 0, "10.0.0.1:82"),
                ],
            ),
        ])
    }

    /// Status and body of the reply to a `GET`.
    fn get(args: &str, upstreams: &Fake) -> (u16, String) {
        let call = Call::get(args);
        let response = answer(&call, Ok(&[]), Some(upstreams), &Settings::default()).response;
        (response.status, crate::forms::fake::said(&response))
    }

    #[test]
    fn all_servers_of_the_host() {
        let fake = upstreams();
        let table = [
            ("server=10.0.0.1&down=", 200, "a: 1 server changed\nb: 3 servers changed\n"),
            ("server=10.0.0.1:80&drain=", 200, "a: 1 server changed\nb: 1 server changed\n"),
            ("server=10.0.0.1:81&down=", 200, "b: 1 server unchanged\n"),
            ("server=10.0.0.1&up=", 200, "a: 1 server changed\nb: 3 servers changed\n"),
            ("server=10.0.0.1&up=", 200, "a: 1 server unchanged\nb: 3 servers unchanged\n"),
            ("server=10.0.0.9&down=", 404, "no upstream has this server: \"10.0.0.9\""),
            ("server=nonsense;&down=", 404, "no upstream has this server: \"nonsense;\""),
            ("down=", 400, "'server' argument required"),
            ("", 400, "upstream=* is only for up, down and drain of a server"),
            ("server=10.0.0.1", 400, "upstream=* is only for up, down and drain of a server"),
            ("server=10.0.0.1&weight=2", 400, "upstream=* is only for up, down and drain of a server"),
            ("server=10.0.0.1&down=&weight=2", 400, "upstream=* is only for up, down and drain of a server"),
            ("add=&server=10.0.0.9", 400, "upstream=* is only for up, down and drain of a server"),
            ("remove=&server=10.0.0.1", 400, "upstream=* is only for up, down and drain of a server"),
            ("peer=0&down=", 400, "upstream=* is only for up, down and drain of a server"),
            ("id=0&down=", 400, "upstream=* is only for up, down and drain of a server"),
            ("servers=10.0.0.1&down=", 400, "upstream=* is only for up, down and drain of a server"),
        ];
        for (args, status, body) in table {
            assert_eq!(get(&format!("upstream=*&{args}"), &fake), (status, body.to_owned()), "{args}");
        }
    }

    #[test]
    fn one_that_refuses_keeps_all_of_its_servers() {
        let mut fake = upstreams();
        fake.guard = Some(Guard::Percent(50));
        let text = "guard: 1 usable server would be left, at least 2 must be, use \"force=\"";
        let body = format!("a: 1 server changed\nb: {text}");
        assert_eq!(get("upstream=*&server=10.0.0.1&down=", &fake), (409, body));
        let snapshot = fake.snapshot(UpstreamIndex(3)).unwrap();
        assert!(snapshot.peers.iter().all(|peer| peer.terms.admin == Admin::Up));
        let (status, body) = get("upstream=*&server=10.0.0.1&down=&format=json", &fake);
        assert_eq!(status, 409);
        assert!(
            body.starts_with(r#"[{"upstream":"a","revision":4,"changed":0,"servers":[{"id":0,"#),
            "{body}"
        );
        let end =
            r#"]},{"upstream":"b","error":{"status":409,"text":"guard: 1 usable server would be left, "#;
        assert!(body.contains(end), "{body}");
        assert!(body.ends_with(r#""code":"Guarded"}}]"#), "{body}");
        let forced = get("upstream=*&server=10.0.0.1&down=&force=", &fake);
        assert_eq!(forced, (200, "a: 1 server unchanged\nb: 3 servers changed\n".to_owned()));
    }

    #[test]
    fn what_is_logged() {
        let mut fake = upstreams();
        fake.guard = Some(Guard::Percent(50));
        let call = Call::get("upstream=*&server=10.0.0.1&down=");
        let log = answer(&call, Ok(&[]), Some(&fake), &Settings::default()).log;
        let [(Level::Notice, done), (Level::Info, refused)] = log.as_slice() else { panic!("{log:?}") };
        assert_eq!(done, "upstream \"a\" server \"10.0.0.1:80\": state up -> down, revision 4");
        assert!(refused.starts_with("upstream control: upstream \"b\" refused: guard: "), "{refused}");
    }
}
