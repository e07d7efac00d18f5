//! Which peers of an upstream are shown: those of some states, or a part of the list.

use crate::model::query::Query;
use crate::model::snapshot::{Peer, Snapshot};
use crate::model::state::State;

use super::super::arguments::{invalid, not_one_of};
use super::super::error::Refusal;

/// Bytes of the texts of a peer, about.
const TEXTS: usize = 64;

/// The argument that names states.
pub const STATE: &str = "state";

/// The argument that leaves out the first peers.
pub const OFFSET: &str = "offset";

/// The argument that bounds how many are shown.
pub const LIMIT: &str = "limit";

/// The words for states: those that are shown, and that of the request that makes a server drain.
const WORDS: [(&str, State); 5] = [
    ("up", State::Up),
    ("down", State::Down),
    ("draining", State::Draining),
    ("drain", State::Draining),
    ("unavail", State::Unavail),
];

/// What was asked for of the peers of each upstream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Filter {
    /// States to show; all if there are none.
    states: Vec<State>,
    /// How many to leave out.
    offset: usize,
    /// How many to show after that.
    limit: usize,
}

/// An upstream with the peers that are shown.
#[derive(Debug)]
pub struct Listing {
    /// The upstream; all but its peers is that of the whole.
    pub snapshot: Snapshot,
    /// How many peers have the states that were asked for, whether or not the part of the list has them; none if all
    /// were asked for.
    pub matched: Option<usize>,
}

impl Filter {
    /// What a request asks for; none if it asks for all.
    ///
    /// # Errors
    ///
    /// If a value makes no sense.
    pub fn of(query: &Query) -> Result<Option<Self>, Refusal> {
        if [STATE, OFFSET, LIMIT].iter().all(|name| query.get(name).is_none()) {
            return Ok(None);
        }
        let states = query.get(STATE).map_or(Ok(Vec::new()), states)?;
        let [offset, limit] = [(OFFSET, 0), (LIMIT, usize::MAX)]
            .map(|(name, default)| query.get(name).map_or(Ok(default), |value| number(value, name)));
        Ok(Some(Self { states, offset: offset?, limit: limit? }))
    }
}

impl Listing {
    /// How many bytes it keeps, about: with the texts of its peers.
    pub fn bytes(&self) -> usize {
        self.snapshot.peers.capacity().saturating_mul(size_of::<Peer>() + TEXTS)
    }

    /// The peers of an upstream that were asked for.
    pub fn new(mut snapshot: Snapshot, choice: Option<&Filter>) -> Self {
        let Some(Filter { states, offset, limit }) = choice else {
            return Self { snapshot, matched: None };
        };
        let peers = &mut snapshot.peers;
        if !states.is_empty() {
            peers.retain(|peer| states.contains(&peer.state()));
        }
        let matched = peers.len();
        peers.truncate(offset.saturating_add(*limit));
        peers.drain(..(*offset).min(peers.len()));
        Self { snapshot, matched: Some(matched) }
    }
}

/// The states of a list with commas.
fn states(list: &str) -> Result<Vec<State>, Refusal> {
    let state = |word| WORDS.iter().find(|(known, _)| *known == word).map(|(_, state)| *state);
    list.split(',')
        .map(|word| state(word).ok_or_else(|| not_one_of(word, STATE, &WORDS.map(|(word, _)| word))))
        .collect()
}

/// A number in digits. One that is too large for any list is the largest.
fn number(text: &str, name: &str) -> Result<usize, Refusal> {
    if text.is_empty() || !text.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(invalid(text, name));
    }
    Ok(text.parse().unwrap_or(usize::MAX))
}

#[cfg(test)]
mod tests {
    use super::super::super::fake::{self, NOW};
    use super::*;
    use crate::model::state::{Admin, Failures};

    /// The servers that a query chooses of six, and how many matched.
    fn chosen(query: &str) -> Result<(String, Option<usize>), String> {
        let choice = Filter::of(&Query::parse(query.as_bytes()).unwrap()).map_err(|refusal| refusal.text)?;
        let mut peers: Vec<_> = ["a", "b", "c", "d", "e"].iter().map(|name| fake::peer(0, name)).collect();
        peers.push(fake::backup(5, 0, "f"));
        peers[1].terms.admin = Admin::Down;
        peers[2].terms.admin = Admin::Drain;
        peers[3].failures =
            Failures { fails: 1, max_fails: 1, fail_timeout: 10, checked: NOW.0, single: false };
        let listing = Listing::new(fake::upstream("u", peers), choice.as_ref());
        let names = listing.snapshot.peers.iter().map(|peer| &*peer.name).collect();
        Ok((names, listing.matched))
    }

    #[test]
    fn peers_are_chosen() {
        let table = [
            ("", "abcdef", None),
            ("state=up", "aef", Some(3)),
            ("state=down", "b", Some(1)),
            ("state=draining", "c", Some(1)),
            ("state=drain", "c", Some(1)),
            ("state=unavail", "d", Some(1)),
            ("state=unavail,down,down", "bd", Some(2)),
            ("offset=0", "abcdef", Some(6)),
            ("offset=4", "ef", Some(6)),
            ("offset=6", "", Some(6)),
            ("offset=99999999999999999999999", "", Some(6)),
            ("limit=2", "ab", Some(6)),
            ("limit=0", "", Some(6)),
            ("limit=99999999999999999999999&offset=5", "f", Some(6)),
            ("offset=1&limit=3", "bcd", Some(6)),
            ("state=up&offset=1&limit=1", "e", Some(3)),
        ];
        for (query, names, matched) in table {
            assert_eq!(chosen(query), Ok((names.to_owned(), matched)), "{query}");
        }
    }

    #[test]
    fn values_that_make_no_sense() {
        let table = [
            ("state=", "invalid value \"\" in \"state\", STATES"),
            ("state=Up", "invalid value \"Up\" in \"state\", STATES"),
            ("state=up,", "invalid value \"\" in \"state\", STATES"),
            ("state=up,gone", "invalid value \"gone\" in \"state\", STATES"),
            ("offset=", "invalid value \"\" in \"offset\""),
            ("offset=-1", "invalid value \"-1\" in \"offset\""),
            ("limit=%2b1", "invalid value \"+1\" in \"limit\""),
            ("limit=1k", "invalid value \"1k\" in \"limit\""),
        ];
        let states = r#"it must be "up" or "down" or "draining" or "drain" or "unavail""#;
        for (query, text) in table {
            assert_eq!(chosen(query), Err(text.replace("STATES", states)), "{query}");
        }
    }
}
