//! The form of EBLB's `/upstreamcontrol`: `stream=` names the upstream, `peer=` is a position among its primaries, and
//! the reply is what a Lua function returned there: a word, a value, an error.

use crate::model::query::{Query, quoted};
use crate::model::server::Change;
use crate::model::state::Admin;
use crate::ops::{Action, Command, OpError, Selector, Upstreams};

use super::super::accept::{FORMAT, Format};
use super::super::arguments::{flag, only};
use super::super::call::Call;
use super::super::error::Refusal;
use super::super::markup;
use super::super::respond::{self, Answer};
use super::change::{Done, Shown, carry_out};
use super::json::ServersView;

/// The arguments. `name` and `server` are those of a form, and mean nothing.
const KNOWN: [&str; 11] =
    ["stream", "peer", "down", "vdown", "addr", "name", "server", "gui", "force", "note", FORMAT];

/// The reply where nothing is asked for.
const NOTHING: &str = "<b>not yet implemented !</b>\n";

/// What `gui` adds: the page goes back to the status.
const REFRESH: &str =
    "<html><head><META HTTP-EQUIV=\"REFRESH\" CONTENT=\"1; URL=/upstreamstatus\"></head></html>\n";

/// What is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verb {
    /// To bring a server up.
    Up,
    /// To take it down.
    Down,
    /// To give it another address.
    Address,
}

impl Verb {
    /// The word that the reply begins with.
    fn word(self) -> &'static str {
        match self {
            Self::Up => "up",
            Self::Down => "down",
            Self::Address => "changed",
        }
    }
}

/// Why nothing was done.
struct PeerRefusal {
    /// In the words of today.
    refusal: Refusal,
    /// In the words that scripts know.
    words: String,
}

impl From<Refusal> for PeerRefusal {
    fn from(refusal: Refusal) -> Self {
        Self { words: refusal.text.clone(), refusal }
    }
}

impl From<OpError> for PeerRefusal {
    fn from(error: OpError) -> Self {
        let words = match &error {
            OpError::UpstreamNotFound(_) => "upstream not found".to_owned(),
            OpError::BadPosition(_) => "bad peer id".to_owned(),
            OpError::Static(reason) => reason.to_string(),
            error => error.to_string(),
        };
        Self { refusal: error.into(), words }
    }
}

/// The answer to a request in this form.
pub fn answer(call: &Call<'_>, query: &Query, upstreams: &dyn Upstreams, format: Format) -> Answer {
    let verb = verb(query);
    // What cannot be understood counts as a wish to take down, for the word.
    let word = verb.as_ref().map_or(Verb::Down, |verb| verb.unwrap_or(Verb::Down)).word();
    let result = only(query, &KNOWN).and(verb).map_err(PeerRefusal::from);
    let result = result.and_then(|verb| verb.map(|verb| act(call, query, upstreams, verb)).transpose());
    let (answer, text) = match (result, format) {
        (Ok(Some(done)), Format::Json) => {
            return done.log(Answer::json(&ServersView::singly(&done.snapshot, &done.peers(), call.now)));
        }
        (Ok(None), Format::Json) => return listing(call, query, upstreams),
        (Err(refused), Format::Json) => return Answer::refused(&refused.refusal, format),
        (Ok(Some(done)), Format::Text) => {
            let text = format!("{word} true nil\n");
            (done.log(Answer::text(text.clone())), text)
        }
        (Ok(None), Format::Text) => {
            // This one is markup already.
            let answer = Answer::text(NOTHING.to_owned());
            return if query.has("gui") { answer.into_page(format!("{NOTHING}{REFRESH}")) } else { answer };
        }
        (Err(refused), Format::Text) => {
            let text = format!("{word} nil {}\n", refused.words);
            (Answer::refused_in_words(&refused.refusal, text.clone()), text)
        }
    };
    if query.has("gui") { answer.into_page(markup::escape(&text) + REFRESH) } else { answer }
}

/// What is asked for, if anything is. `vdown` wins over `down`, which wins over `addr`.
fn verb(query: &Query) -> Result<Option<Verb>, Refusal> {
    match query.get("vdown").or_else(|| query.get("down")) {
        Some("true" | "1") => Ok(Some(Verb::Down)),
        Some("false" | "0") => Ok(Some(Verb::Up)),
        Some(value) => Err(Refusal::argument(format!("invalid value {}", quoted(value.as_bytes())))),
        None => Ok(query.has("addr").then_some(Verb::Address)),
    }
}

/// Does what is asked for.
fn act(call: &Call<'_>, query: &Query, upstreams: &dyn Upstreams, verb: Verb) -> Result<Done, PeerRefusal> {
    let stream = query.get("stream").unwrap_or_default();
    // Before the position, which may be missing: of both, scripts know this error.
    let upstream = upstreams.find(stream)?;
    let set = |admin| Action::Set(Change { admin: Some(admin), params: Vec::new() });
    let action = match verb {
        Verb::Up => set(Admin::Up),
        Verb::Down => set(Admin::Down),
        Verb::Address => {
            let address = query.get("addr").unwrap_or_default().to_owned();
            Action::Readdress { address, change: Change::default() }
        }
    };
    let command = Command {
        upstream,
        servers: vec![position(query)?],
        action,
        force: flag(query, "force")?,
        client: call.client.clone(),
        note: query.get("note").filter(|note| !note.is_empty()).map(str::to_owned),
    };
    Ok(carry_out(call, upstreams, &command, Shown::Chosen)?)
}

/// The server that `peer=` means.
fn position(query: &Query) -> Result<Selector, OpError> {
    let digits = query.get("peer").filter(|text| text.bytes().all(|byte| byte.is_ascii_digit()));
    digits.and_then(|text| text.parse().ok()).map(Selector::Position).ok_or_else(bad_position)
}

/// The error of a position that no list has.
fn bad_position() -> OpError {
    OpError::BadPosition(usize::MAX)
}

/// The upstream, for a program that asks for nothing.
fn listing(call: &Call<'_>, query: &Query, upstreams: &dyn Upstreams) -> Answer {
    let stream = query.get("stream").unwrap_or_default();
    let found = upstreams.look(stream).map_err(Refusal::from);
    match found
        .and_then(|snapshot| respond::room(upstreams, snapshot.peers.len()).map(|room| (snapshot, room)))
    {
        Ok((snapshot, _room)) => Answer::json(&ServersView::list(&snapshot, &snapshot.peers, call.now)),
        Err(refusal) => Answer::refused(&refusal, Format::Json),
    }
}

#[cfg(test)]
mod tests {
    use super::super::super::fake::fake;
    use super::super::super::settings::Settings;
    use super::super::answer;
    use super::*;
    use crate::model::log::Level;

    /// Status and body of the reply to a `GET`.
    fn get(args: &str) -> (u16, String) {
        let response = answer(&Call::get(args), Ok(&[]), Some(&fake()), &Settings::default()).response;
        let body = String::from_utf8(response.body).unwrap();
        assert!(body.ends_with('\n'), "{args}");
        (response.status, body)
    }

    #[test]
    fn the_contract() {
        let table = [
            ("down=true&peer=0&stream=backend", 200, "down true nil\n"),
            ("down=1&peer=0&stream=backend", 200, "down true nil\n"),
            ("down=false&peer=0&stream=backend", 200, "up true nil\n"),
            ("down=0&peer=0&stream=backend", 200, "up true nil\n"),
            ("vdown=true&down=false&peer=0&stream=backend", 200, "down true nil\n"),
            ("vdown=0&down=junk&peer=0&stream=backend", 200, "up true nil\n"),
            ("down=true&addr=1.1.1.1&peer=2&stream=backend", 200, "down true nil\n"),
            ("down=true&peer=0&stream=backend_zone&name=x&server=y", 200, "down true nil\n"),
            ("down=true&peer=0&stream=nope", 404, "down nil upstream not found\n"),
            ("down=false&peer=0&stream=nope", 404, "up nil upstream not found\n"),
            ("down=false&stream=nope", 404, "up nil upstream not found\n"),
            ("addr=1.1.1.1&peer=0&stream=nope", 404, "changed nil upstream not found\n"),
            ("down=true&peer=3&stream=backend", 400, "down nil bad peer id\n"),
            ("down=0&peer=99999999999999999999&stream=backend", 400, "up nil bad peer id\n"),
            ("down=true&peer=-1&stream=backend", 400, "down nil bad peer id\n"),
            ("down=true&peer=x&stream=backend", 400, "down nil bad peer id\n"),
            ("down=true&peer=&stream=backend", 400, "down nil bad peer id\n"),
            ("down=true&stream=backend", 400, "down nil bad peer id\n"),
            ("down=maybe&peer=0&stream=backend", 400, "down nil invalid value \"maybe\"\n"),
            ("down=&peer=0&stream=backend", 400, "down nil invalid value \"\"\n"),
            ("down=true&peer=0&stream=backend&x=", 400, "down nil unknown argument \"x\"\n"),
            ("addr=192.168.169.2:85&peer=0&stream=backend", 200, "changed true nil\n"),
            ("addr=192.168.169.2&peer=0&stream=backend", 200, "changed true nil\n"),
            ("addr=127.0.0.1:8081&peer=0&stream=backend", 200, "changed true nil\n"),
            (
                "addr=1.2.3&peer=0&stream=backend",
                400,
                "changed nil invalid address \"1.2.3\": not an ip address\n",
            ),
            ("addr=&peer=0&stream=backend", 400, "changed nil empty address\n"),
            (
                "addr=app.test:80&peer=0&stream=backend",
                400,
                "changed nil host name \"app.test:80\" where an address is needed\n",
            ),
            ("addr=192.168.169.2:85&peer=9&stream=backend", 400, "changed nil bad peer id\n"),
            ("peer=0&stream=backend", 200, "<b>not yet implemented !</b>\n"),
            ("stream=nope", 200, "<b>not yet implemented !</b>\n"),
            ("down=true&peer=0&stream=fixed", 501, "down nil upstream has no \"zone\": ADD\n"),
            ("down=0&peer=0&stream=fixed", 501, "up nil upstream has no \"zone\": ADD\n"),
            ("addr=1&peer=0&stream=fixed", 501, "changed nil upstream has no \"zone\": ADD\n"),
        ];
        let add = "add \"upstream_auto_zone 64k;\" or \"zone NAME 64k;\"";
        for (args, status, body) in table {
            assert_eq!(get(args), (status, body.replace("ADD", add)), "{args}");
        }
    }

    #[test]
    fn an_address_is_changed_by_position() {
        let upstreams = fake();
        let call = Call::get("addr=192.168.169.2&peer=1&stream=backend");
        let answer = answer(&call, Ok(&[]), Some(&upstreams), &Settings::default());
        assert_eq!(upstreams.backend_peer(1).name, "192.168.169.2:8082");
        let line = "upstream \"backend\" server \"127.0.0.1:8082\": \
                    address 127.0.0.1:8082 -> 192.168.169.2:8082, revision 4, id 1";
        assert_eq!(answer.log, [(Level::Notice, line.to_owned())]);
    }

    #[test]
    fn gui_makes_a_page_of_it() {
        let table = [
            ("down=1&peer=0", 200, "down true nil\n"),
            ("down=1&peer=9", 400, "down nil bad peer id\n"),
            ("down=<s>'&peer=0", 400, "down nil invalid value &quot;&lt;s&gt;&#39;&quot;\n"),
            ("&%3Cscript%3E=", 400, "down nil unknown argument &quot;&lt;script&gt;&quot;\n"),
            ("peer=0", 200, NOTHING),
        ];
        for (args, status, text) in table {
            for gui in ["gui", "gui=", "gui=1"] {
                let call = format!("stream=backend&{args}&{gui}");
                let response =
                    answer(&Call::get(&call), Ok(&[]), Some(&fake()), &Settings::default()).response;
                assert_eq!(response.content_type, "text/html; charset=utf-8");
                assert_eq!(response.status, status);
                assert_eq!(String::from_utf8(response.body).unwrap(), format!("{text}{REFRESH}"), "{call}");
            }
        }
    }

    #[test]
    fn json() {
        let (status, body) = get("stream=backend&peer=1&down=1&gui=1&format=json");
        assert_eq!(status, 200);
        assert!(body.starts_with(r#"{"upstream":"backend","revision":4,"server":{"id":1,"#), "{body}");
        let (status, body) = get("stream=backend&format=json");
        assert_eq!(status, 200);
        assert!(body.starts_with(r#"{"upstream":"backend","revision":3,"servers":[{"id":0,"#), "{body}");
        let (status, body) = get("stream=nope&peer=1&down=1&format=json");
        assert_eq!(status, 404);
        assert_eq!(
            body,
            r#"{"error":{"status":404,"text":"upstream is not found: \"nope\"","code":"UpstreamNotFound"}}"#
                .to_owned()
                + "\n"
        );
    }

    #[test]
    fn what_is_logged() {
        let log = |args: &str| answer(&Call::get(args), Ok(&[]), Some(&fake()), &Settings::default()).log;
        let line =
            "upstream \"backend\" server \"127.0.0.1:8081\": state up -> down, revision 4, id 0, note: \"x\"";
        assert_eq!(log("stream=backend&peer=0&down=1&note=x"), [(Level::Notice, line.to_owned())]);
        assert!(log("stream=backend&peer=0&down=0").is_empty());
        assert_eq!(log("stream=backend&peer=9&down=0").len(), 1);
    }
}
