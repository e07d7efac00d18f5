//! A peer as JSON, in the field names of the NGINX Plus API.

use serde::{Serialize, Serializer};

use crate::model::snapshot::Peer;
use crate::model::state::{Admin, Reason};
use crate::model::time::{Seconds, UnixTime};

/// One peer.
#[derive(Serialize)]
pub struct PeerView<'a> {
    /// Identity; none in a static upstream.
    #[serde(skip_serializing_if = "Option::is_none")]
    id: Option<u64>,
    /// Text of the `server` directive.
    server: &'a str,
    /// Address.
    name: &'a str,
    /// Whether it is a `backup` server.
    backup: bool,
    /// Its weight.
    weight: u64,
    /// Weight lowered after failures.
    effective_weight: i64,
    /// Round robin's running sum.
    current_weight: i64,
    /// The word for its state.
    state: &'static str,
    /// Why it is in that state, if there is a reason.
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<ReasonView>,
    /// Requests that it serves now.
    active: u64,
    /// Most connections at a time; 0 for no limit.
    max_conns: u64,
    /// Failures counted at present.
    fails: u64,
    /// Failures after which it is left alone.
    max_fails: u64,
    /// For how long; a time with its unit.
    #[serde(serialize_with = "by_display")]
    fail_timeout: Seconds,
    /// Whether the balancers may not choose it.
    down: bool,
    /// When a request to it last failed.
    #[serde(skip_serializing_if = "Option::is_none", serialize_with = "by_display_if_any")]
    last_failure: Option<UnixTime>,
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
        /// Its words.
        #[serde(skip_serializing_if = "Option::is_none")]
        note: Option<String>,
    },
    /// `max_fails` was reached.
    Failures,
}

impl<'a> PeerView<'a> {
    /// The view of a peer at `now`.
    pub fn new(peer: &'a Peer, now: UnixTime) -> Self {
        Self {
            id: peer.id.map(|id| id.0),
            server: &peer.server,
            name: &peer.name,
            backup: peer.is_backup(),
            weight: peer.params.weight,
            effective_weight: peer.effective_weight,
            current_weight: peer.current_weight,
            state: peer.state(now).as_str(),
            reason: peer.why(now).map(ReasonView::from),
            active: peer.active,
            max_conns: peer.params.max_conns,
            fails: peer.failures.fails,
            max_fails: peer.params.max_fails,
            fail_timeout: Seconds(peer.params.fail_timeout),
            down: is_down(peer),
            last_failure: peer.last_failure,
        }
    }
}

impl From<Reason> for ReasonView {
    fn from(reason: Reason) -> Self {
        match reason {
            Reason::Configuration => Self::Configuration,
            Reason::Operator { at, client, note } => {
                Self::Operator { at, client: String::from(&client), note }
            }
            Reason::Failures => Self::Failures,
        }
    }
}

/// Whether nginx's balancers may not choose the peer, or somebody wants that.
pub fn is_down(peer: &Peer) -> bool {
    peer.down != 0 || peer.admin == Admin::Down
}

/// Serializes what a value writes of itself.
fn by_display<S: Serializer>(value: &impl ToString, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(&value.to_string())
}

/// The same of a value that may not be there, in which case the field should be skipped.
fn by_display_if_any<S: Serializer>(value: &Option<impl ToString>, serializer: S) -> Result<S::Ok, S::Error> {
    match value {
        Some(value) => by_display(value, serializer),
        None => serializer.serialize_none(),
    }
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
    fn reasons() {
        let mut peer = fake::peer(0, "a");
        peer.reason = Some(Reason::Configuration);
        assert!(json(&peer).contains(r#""reason":{"by":"configuration"}"#));
        peer.admin = Admin::Down;
        peer.reason = Some(Reason::Operator {
            at: UnixTime(0),
            client: "::1".into(),
            note: Some("a \"b\"".to_owned()),
        });
        assert!(json(&peer).contains(
            r#""state":"down","reason":{"by":"operator","at":"1970-01-01T00:00:00Z","client":"::1","note":"a \"b\""}"#
        ));
        peer.admin = Admin::Up;
        peer.last_failure = Some(UnixTime(1));
        peer.failures =
            Failures { fails: 1, max_fails: 1, fail_timeout: 10, checked: fake::NOW.0, single: false };
        let failed = json(&peer);
        assert!(failed.contains(r#""state":"unavail","reason":{"by":"failures"}"#), "{failed}");
        assert!(failed.ends_with(r#""down":false,"last_failure":"1970-01-01T00:00:01Z"}"#), "{failed}");
    }

    #[test]
    fn down_is_what_nginx_or_the_operator_says() {
        let mut peer = fake::peer(0, "a");
        assert!(!is_down(&peer));
        peer.admin = Admin::Down;
        assert!(is_down(&peer));
        peer.admin = Admin::Up;
        peer.down = 8;
        assert!(is_down(&peer));
    }
}
