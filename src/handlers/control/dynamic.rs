//! The form of ngx_dynamic_upstream: `upstream=` and what to do with which of its servers. The reply to a change is the
//! whole upstream. With `id=`, and throughout in a location with `upstream_conf`, the lines are those of NGINX Plus's
//! directive of that name, and a change is answered with the server that it was about.

use crate::model::query::Query;
use crate::model::snapshot::{Peer, Snapshot};
use crate::nginx::log::Level;
use crate::ops::{Command, OpError, Selector, Upstreams};

use super::super::accept::Format;
use super::super::call::Call;
use super::super::error::{Kind, Refusal};
use super::super::respond::Answer;
use super::super::settings::Dialect;
use super::change::{Done, carry_out};
use super::everywhere;
use super::json::ServersView;
use super::lines::{Style, listing};
use super::order::{Choice, Order, Task};
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
    let Some(action) = order.task.action() else {
        return list(call, &order, upstreams, format, style);
    };
    let command = Command {
        upstream: order.upstream.clone(),
        servers: order.choice.selectors(),
        action,
        force: order.force,
        client: call.client.clone(),
        note: order.note.clone(),
    };
    match carry_out(upstreams, &command) {
        Ok(done) => Ok(done.log(changed(call, &order, &done, format, style))),
        Err(error) if dialect == Dialect::Any && is_so_already(&order.task, &error) => {
            Err(Refusal::new(Kind::NothingToDo, error.to_string()))
        }
        Err(error) => Err(error.into()),
    }
}

/// Whether ngx_dynamic_upstream answers such an error as if there were nothing to do.
fn is_so_already(task: &Task, error: &OpError) -> bool {
    matches!((task, error), (Task::Add(_), OpError::Exists(_)) | (Task::Remove, OpError::ServerNotFound(_)))
}

/// Lists the upstream, or the server with an id. Other choices without a change choose nothing.
fn list(
    call: &Call<'_>,
    order: &Order,
    upstreams: &dyn Upstreams,
    format: Format,
    style: Style,
) -> Result<Answer, Refusal> {
    let found = upstreams.find(&order.upstream).and_then(|upstream| upstreams.snapshot(upstream));
    let snapshot = found.ok_or_else(|| OpError::UpstreamNotFound(order.upstream.clone()))?;
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
        Format::Text => Answer::text(listing(&snapshot.peers, style)),
    })
}

/// The reply to a change.
fn changed(call: &Call<'_>, order: &Order, done: &Done, format: Format, style: Style) -> Answer {
    let (snapshot, peers) = (&done.snapshot, done.peers());
    match (&order.task, format) {
        (Task::Remove, Format::Json) => {
            Answer::json(&ServersView::removed(snapshot, done.removed.first(), call.now))
        }
        (Task::Remove, Format::Text) if snapshot.peers.is_empty() => Answer::text(NONE_LEFT.to_owned()),
        (Task::Remove, Format::Text) => Answer::text(listing(&snapshot.peers, style)),
        _ if style == Style::Numbered => singly(snapshot, &peers, style, format, call),
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
mod tests {
    use super::super::super::fake::{Fake, fake};
    use super::super::answer;
    use super::*;
    use crate::model::state::Admin;
    use crate::nginx::log::Level;

    /// Status and body of the reply to a `GET`.
    fn get(args: &str, upstreams: &Fake) -> (u16, String) {
        let response = answer(&Call::get(args), Ok(&[]), Some(upstreams), Dialect::Any).response;
        (response.status, String::from_utf8(response.body).unwrap())
    }

    /// The plain listing of `backend`.
    const PLAIN: &str = "server 127.0.0.1:8081 addr=127.0.0.1:8081;\n\
                         server 127.0.0.1:8082 addr=127.0.0.1:8082;\n\
                         server app.example.com addr=127.0.0.1:8083;\n\
                         server 127.0.0.1:8084 addr=127.0.0.1:8084 backup;\n";

    /// The verbose one, with `{}` where the parameters of the second server are.
    fn verbose(second: &str) -> String {
        let same = "weight=1 max_fails=1 fail_timeout=10 max_conns=0 conns=0";
        format!(
            "server 127.0.0.1:8081 addr=127.0.0.1:8081 {same};\n\
             server 127.0.0.1:8082 addr=127.0.0.1:8082 {second};\n\
             server app.example.com addr=127.0.0.1:8083 {same};\n\
             server 127.0.0.1:8084 addr=127.0.0.1:8084 {same} backup;\n"
        )
    }

    #[test]
    fn listings() {
        let same = verbose("weight=1 max_fails=1 fail_timeout=10 max_conns=0 conns=0");
        for name in ["backend", "backend_zone"] {
            let upstream = format!("upstream={name}");
            assert_eq!(get(&upstream, &fake()), (200, PLAIN.to_owned()));
            assert_eq!(get(&format!("{upstream}&server=127.0.0.1:8082"), &fake()), (200, PLAIN.to_owned()));
            assert_eq!(get(&format!("{upstream}&verbose="), &fake()), (200, same.clone()));
        }
        assert_eq!(
            get("upstream=backend&id=1", &fake()),
            (200, "server 127.0.0.1:8082; # id=1\n".to_owned())
        );
        assert_eq!(
            get("upstream=fixed", &fake()),
            (200, "server 10.0.0.1:80 addr=10.0.0.1:80;\n".to_owned())
        );
    }

    #[test]
    fn changes() {
        let table = [
            (
                "server=127.0.0.1:8082&weight=10&max_fails=5&fail_timeout=5",
                "weight=10 max_fails=5 fail_timeout=5 max_conns=0 conns=0",
            ),
            ("peer=1&max_conns=9", "weight=1 max_fails=1 fail_timeout=10 max_conns=9 conns=0"),
            ("peer=127.0.0.1:8082&down=", "weight=1 max_fails=1 fail_timeout=10 max_conns=0 conns=0 down"),
            (
                "servers=127.0.0.1:8082&drain=",
                "weight=1 max_fails=1 fail_timeout=10 max_conns=0 conns=0 draining",
            ),
        ];
        for (args, second) in table {
            assert_eq!(get(&format!("upstream=backend&{args}"), &fake()), (200, verbose(second)), "{args}");
        }
    }

    #[test]
    fn a_change_by_id_answers_with_that_server() {
        let upstreams = fake();
        let table = [
            ("id=1&drain=1", "server 127.0.0.1:8082; # id=1 draining\n"),
            ("id=3&down=", "server 127.0.0.1:8084 backup down; # id=3\n"),
            (
                "id=1&up=&weight=2&fail_timeout=20s",
                "server 127.0.0.1:8082 weight=2 fail_timeout=20s; # id=1\n",
            ),
        ];
        for (args, line) in table {
            assert_eq!(get(&format!("upstream=backend&{args}"), &upstreams), (200, line.to_owned()));
        }
    }

    #[test]
    fn several_at_once() {
        let upstreams = fake();
        let (status, body) =
            get("upstream=backend&servers=127.0.0.1:8081,127.0.0.1:8084&down=&format=json", &upstreams);
        assert_eq!(status, 200);
        assert!(body.starts_with(r#"{"upstream":"backend","revision":4,"servers":[{"id":0,"#), "{body}");
        assert_eq!(upstreams.backend_peer(0).admin, Admin::Down);
        assert_eq!(upstreams.backend_peer(3).admin, Admin::Down);
        // One that is not there, and none is changed.
        let refused = get("upstream=backend&servers=127.0.0.1:8081,nope&up=", &upstreams);
        assert_eq!(refused, (400, "server or peer is not found".to_owned()));
        assert_eq!(upstreams.backend_peer(0).admin, Admin::Down);
    }

    #[test]
    fn refusals() {
        let table = [
            ("upstream=nope", 404, "upstream is not found"),
            ("upstream=nope&peer=0&down=", 404, "upstream is not found"),
            ("upstream=backend&server=nope&down=", 400, "server or peer is not found"),
            ("upstream=backend&peer=3&down=", 400, "bad peer id"),
            ("upstream=backend&id=9", 400, "server or peer is not found"),
            ("upstream=backend&id=9&down=", 400, "server or peer is not found"),
            ("upstream=fixed&peer=0&down=", 501, "only for upstream with 'zone'"),
        ];
        for (args, status, text) in table {
            assert_eq!(get(args, &fake()), (status, text.to_owned()), "{args}");
            let code = if status == 404 {
                "UpstreamNotFound"
            } else if status == 501 {
                "UpstreamStatic"
            } else {
                "ServerNotFound"
            };
            let json = format!(r#"{{"error":{{"status":{status},"text":"{text}","code":"{code}"}}}}"#);
            assert_eq!(get(&format!("{args}&format=json"), &fake()), (status, json), "{args}");
        }
    }

    #[test]
    fn what_the_store_refuses() {
        let table = [(OpError::StoreFull { needed: 512 }, 500, false), (OpError::Busy, 503, true)];
        for (error, status, retry) in table {
            let mut upstreams = fake();
            upstreams.refuse = Some(error);
            let refused =
                answer(&Call::get("upstream=backend&id=0&down="), Ok(&[]), Some(&upstreams), Dialect::Any)
                    .response;
            assert_eq!(refused.status, status);
            assert_eq!(refused.headers.contains(&("Retry-After", "1".to_owned())), retry);
        }
    }

    #[test]
    fn json_after_a_change_is_the_revision_and_the_server() {
        for selector in ["server=127.0.0.1:8082", "peer=1", "id=1"] {
            let args = format!("upstream=backend&{selector}&down=&note=disk&format=json");
            let (status, body) = get(&args, &fake());
            assert_eq!(status, 200);
            assert!(body.starts_with(r#"{"upstream":"backend","revision":4,"server":{"id":1,"#), "{body}");
            let reason =
                r#"{"by":"operator","at":"2001-09-09T01:46:40Z","client":"127.0.0.1","note":"disk"}"#;
            assert!(body.contains(&format!(r#""state":"down","reason":{reason}"#)), "{body}");
        }
    }

    #[test]
    fn what_is_logged() {
        let log = |args: &str| answer(&Call::get(args), Ok(&[]), Some(&fake()), Dialect::Any).log;
        assert!(log("upstream=backend").is_empty());
        assert!(log("upstream=backend&id=1&up=").is_empty(), "a no-op");
        assert_eq!(
            log("upstream=backend&id=1&down="),
            [(
                Level::Notice,
                "upstream \"backend\" server \"127.0.0.1:8082\": state up -> down, revision 4".to_owned()
            )]
        );
        assert_eq!(
            log("upstream=nope"),
            [(Level::Info, "upstream control: refused with 404: upstream is not found".to_owned())]
        );
    }
}
