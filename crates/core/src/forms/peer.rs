//! A peer as JSON, in the field names of the NGINX Plus API.

use std::fmt::Display;

use serde::ser::SerializeMap;
use serde::{Serialize, Serializer};

use crate::model::snapshot::Peer;
use crate::model::state::{Admin, Reason};
use crate::model::time::{Seconds, UnixTime};

/// One peer.
#[derive(Clone, Copy)]
pub struct PeerView<'a> {
    /// The peer.
    peer: &'a Peer,
    /// The time of the reply.
    now: UnixTime,
    /// What to show of it.
    fields: Fields,
}

/// A field of a peer: its name, and its value, if it has one.
type Field = (&'static str, for<'a> fn(&'a Peer, UnixTime) -> Option<Value<'a>>);

/// The fields, in the order in which they are shown.
const ROWS: [Field; 16] = [
    // None in a static upstream.
    ("id", |peer, _| peer.id.map(|id| Value::Count(id.0))),
    // Text of the `server` directive.
    ("server", |peer, _| Some(Value::Text(&peer.server))),
    // Address.
    ("name", |peer, _| Some(Value::Text(&peer.name))),
    ("backup", |peer, _| Some(Value::Truth(peer.is_backup()))),
    ("weight", |peer, _| Some(Value::Count(peer.terms.params.weight))),
    // Weight lowered after failures.
    ("effective_weight", |peer, _| Some(Value::Signed(peer.effective_weight))),
    // Round robin's running sum.
    ("current_weight", |peer, _| Some(Value::Signed(peer.current_weight))),
    ("state", |peer, _| Some(Value::Text(peer.state().as_str()))),
    // Why it is in that state, if there is a reason.
    ("reason", |peer, now| peer.why(now).map(|reason| Value::Why(reason.into()))),
    // Requests that it serves now.
    ("active", |peer, _| Some(Value::Count(peer.active))),
    // 0 for no limit.
    ("max_conns", |peer, _| Some(Value::Count(peer.terms.params.max_conns))),
    // Failures counted at present.
    ("fails", |peer, _| Some(Value::Count(peer.failures.fails))),
    // Failures after which it is left alone.
    ("max_fails", |peer, _| Some(Value::Count(peer.terms.params.max_fails))),
    // For how long; a time with its unit.
    ("fail_timeout", |peer, _| Some(Value::Length(Seconds(peer.terms.params.fail_timeout)))),
    // Whether the balancers may not choose it.
    ("down", |peer, _| Some(Value::Truth(is_down(peer)))),
    // When a request to it last failed.
    ("last_failure", |peer, _| peer.last_failure.map(Value::Time)),
];

/// Some of the fields: a bit for each row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fields(u16);

/// Value of a field.
#[derive(Serialize)]
#[serde(untagged)]
enum Value<'a> {
    /// Yes or no.
    Truth(bool),
    /// A number.
    Count(u64),
    /// A number that may be negative.
    Signed(i64),
    /// Words.
    Text(&'a str),
    /// A length of time, with its unit.
    #[serde(serialize_with = "by_display")]
    Length(Seconds),
    /// A moment.
    #[serde(serialize_with = "by_display")]
    Time(UnixTime),
    /// Why a peer is in its state.
    Why(ReasonView),
}

/// Why a peer is in its state.
#[derive(Serialize)]
#[serde(tag = "by", rename_all = "lowercase")]
enum ReasonView {
    /// The configuration file says so.
    Configuration,
    /// Somebody asked for it.
    Operator {
        /// When.
        #[serde(serialize_with = "by_display")]
        at: UnixTime,
        /// Address of the client.
        client: String,
        /// Its user.
        #[serde(skip_serializing_if = "Option::is_none")]
        user: Option<String>,
        /// Its words.
        #[serde(skip_serializing_if = "Option::is_none")]
        note: Option<String>,
    },
    /// `max_fails` was reached.
    Failures,
    /// The same, and the next request tries it.
    Retry,
}

impl<'a> PeerView<'a> {
    /// The view of a peer at `now`.
    pub fn new(peer: &'a Peer, now: UnixTime) -> Self {
        Self::of(peer, now, Fields::ALL)
    }

    /// The same with some of the fields.
    pub fn of(peer: &'a Peer, now: UnixTime, fields: Fields) -> Self {
        Self { peer, now, fields }
    }
}

impl Serialize for PeerView<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        for (at, (name, value)) in ROWS.iter().enumerate() {
            if self.fields.has(at)
                && let Some(value) = value(self.peer, self.now)
            {
                map.serialize_entry(name, &value)?;
            }
        }
        map.end()
    }
}

impl Fields {
    /// All of them.
    pub const ALL: Self = Self(u16::MAX);

    /// Those of a list with commas. The error is the first word that names none.
    pub fn named(list: &str) -> Result<Self, &str> {
        list.split(',').try_fold(Self(0), |Self(bits), word| {
            let at = ROWS.iter().position(|(name, _)| *name == word).ok_or(word)?;
            Ok(Self(bits | (1 << at)))
        })
    }

    /// Whether the field of this row is one of them.
    fn has(self, at: usize) -> bool {
        self.0 & (1 << at) != 0
    }
}

impl From<Reason> for ReasonView {
    fn from(reason: Reason) -> Self {
        match reason {
            Reason::Configuration => Self::Configuration,
            Reason::Operator { at, client, user, note } => {
                Self::Operator { at, client: String::from(&client), user, note }
            }
            Reason::Failures => Self::Failures,
            Reason::Retry => Self::Retry,
        }
    }
}

/// Whether nginx's balancers may not choose the peer, or somebody wants that.
pub fn is_down(peer: &Peer) -> bool {
    peer.down != 0 || peer.terms.admin == Admin::Down
}

/// Serializes what a value writes of itself.
fn by_display<S: Serializer>(value: &impl Display, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(value)
}

#[cfg(test)]
mod tests {
    use super::super::fake;
    use super::*;
    use crate::model::state::Failures;

    /// The JSON of a peer.
    fn json(peer: &Peer) -> String {
        serde_json::to_string(&PeerView::new(peer, fake::NOW)).unwrap()
    }

    #[test]
    fn a_peer_that_is_up() {
        assert_eq!(
            json(&fake::peer(0, "127.0.0.1:8081")),
            r#"{"id":0,"server":"127.0.0.1:8081","name":"127.0.0.1:8081","backup":false,"weight":1,"#
                .to_owned()
                + r#""effective_weight":1,"current_weight":0,"state":"up","active":0,"max_conns":0,"fails":0,"#
                + r#""max_fails":1,"fail_timeout":"10s","down":false}"#
        );
    }

    #[test]
    fn some_fields_in_their_usual_order() {
        let peer = fake::peer(7, "a");
        let json = |list| {
            let view = Fields::named(list).map(|fields| PeerView::of(&peer, fake::NOW, fields))?;
            Ok(serde_json::to_string(&view).unwrap())
        };
        let table = [
            ("id", Ok(r#"{"id":7}"#)),
            ("state,id,state", Ok(r#"{"id":7,"state":"up"}"#)),
            // It has none.
            ("last_failure", Ok("{}")),
            ("", Err("")),
            ("id,", Err("")),
            ("id,ID,x", Err("ID")),
        ];
        for (list, wanted) in table {
            assert_eq!(json(list), wanted.map(str::to_owned), "{list}");
        }
        let all = ROWS.map(|(name, _)| name).join(",");
        let wanted = serde_json::to_string(&PeerView::new(&peer, fake::NOW)).unwrap();
        assert_eq!(json(&all), Ok(wanted));
    }

    #[test]
    fn reasons() {
        let mut peer = fake::peer(0, "a");
        peer.reason = Some(Reason::Configuration);
        assert!(json(&peer).contains(r#""reason":{"by":"configuration"}"#));
        peer.terms.admin = Admin::Down;
        peer.reason = Some(Reason::Operator {
            at: UnixTime(0),
            client: "::1".into(),
            user: Some("a\"b".to_owned()),
            note: Some("a \"b\"".to_owned()),
        });
        assert!(json(&peer).contains(
            r#""state":"down","reason":{"by":"operator","at":"1970-01-01T00:00:00Z","client":"::1","user":"a\"b","note":"a \"b\""}"#
        ));
        peer.terms.admin = Admin::Up;
        peer.last_failure = Some(UnixTime(1));
        peer.failures =
            Failures { fails: 1, max_fails: 1, fail_timeout: 10, checked: fake::NOW.0, single: false };
        let failed = json(&peer);
        assert!(failed.contains(r#""state":"unavail","reason":{"by":"failures"}"#), "{failed}");
        assert!(failed.ends_with(r#""down":false,"last_failure":"1970-01-01T00:00:01Z"}"#), "{failed}");
        peer.failures.checked = fake::NOW.0 - 11;
        let failed = json(&peer);
        assert!(failed.contains(r#""state":"unavail","reason":{"by":"retry"}"#), "{failed}");
    }

    #[test]
    fn down_is_what_nginx_or_the_operator_says() {
        let mut peer = fake::peer(0, "a");
        assert!(!is_down(&peer));
        peer.terms.admin = Admin::Down;
        assert!(is_down(&peer));
        peer.terms.admin = Admin::Up;
        peer.down = 8;
        assert!(is_down(&peer));
    }
}
