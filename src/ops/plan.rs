//! From a command to what is done to each server.

use crate::model::address::{Address, DEFAULT_PORT};
use crate::model::id::{Revision, ServerId, Slot, UpstreamIndex};
use crate::model::params::{PARAMS, Params};
use crate::model::snapshot::{Method, Peer};
use crate::model::state::Admin;

use super::access::{CommitError, Committed, Lookup, Upstreams};
use super::command::{Action, Addition, Change, Command, Selector};
use super::error::OpError;

/// How often a command is planned again when others were faster. Each time another change was made, so that a command
/// that loses this often has waited for that many others.
const ATTEMPTS: usize = 64;

/// Largest sum of weights under consistent hash: nginx makes 160 points of 16 bytes for each unit, in each worker,
/// which is 40 MB at this sum.
const CONSISTENT_WEIGHT_MAX: u64 = 16_384;

/// Largest length of a note, in bytes: a line's worth, since the store keeps it.
pub const NOTE_MAX: usize = 128;

/// What is asked of one server, and its parameters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Wish {
    /// Up, down or draining.
    pub admin: Admin,
    /// weight, max_conns, max_fails, fail_timeout.
    pub params: Params,
}

/// One thing that changes, for the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Difference {
    /// `state`, or the name of a parameter.
    pub what: &'static str,
    /// What it was.
    pub from: String,
    /// What it is to be.
    pub to: String,
}

/// What becomes of one server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Identity.
    pub id: ServerId,
    /// Where it stood when the plan was made.
    pub slot: Slot,
    /// Text of the `server` directive.
    pub server: String,
    /// Before the change.
    pub from: Wish,
    /// After it.
    pub to: Wish,
    /// Whether it is brought up, which also forgets its failures.
    pub revive: bool,
    /// Whether its state was asked for, so that the client's note is the reason of it.
    pub restate: bool,
    /// Its new address, and the text of it; none if it stays.
    pub readdress: Option<NewAddress>,
}

/// Another address of a server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewAddress {
    /// The address.
    pub address: Address,
    /// What it was, as nginx writes it.
    pub from: String,
}

/// A server that is to leave.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Removal {
    /// Identity.
    pub id: ServerId,
    /// Where it stood when the plan was made.
    pub slot: Slot,
    /// Text of the server.
    pub server: String,
    /// Its address.
    pub name: String,
    /// Requests that it served when the plan was made.
    pub active: u64,
}

impl Entry {
    /// Whether anything is to be other than it is.
    pub fn is_change(&self) -> bool {
        self.from != self.to || self.readdress.is_some()
    }

    /// What is to be other than it is.
    pub fn differences(&self) -> Vec<Difference> {
        let mut differences = Vec::new();
        let mut add = |what, from: String, to: String| {
            if from != to {
                differences.push(Difference { what, from, to });
            }
        };
        add("state", self.from.admin.as_str().to_owned(), self.to.admin.as_str().to_owned());
        if let Some(new) = &self.readdress {
            add("address", new.from.clone(), new.address.to_string());
        }
        for row in &PARAMS {
            add(
                row.name,
                self.from.params.get(row.param).to_string(),
                self.to.params.get(row.param).to_string(),
            );
        }
        differences
    }
}

/// What a command comes to. Nothing was changed yet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plan {
    /// The change of the upstream that it was made for.
    pub revision: Revision,
    /// nginx's count of changes to the lists that it was made for.
    pub membership: u64,
    /// The servers, each once, in nginx's order.
    pub entries: Vec<Entry>,
    /// The servers that leave, in nginx's order.
    pub removed: Vec<Removal>,
    /// The servers that are new; each becomes the last of its list.
    pub added: Vec<Addition>,
    /// Who asks.
    pub client: String,
    /// The client's words.
    pub note: Option<String>,
}

impl Plan {
    /// Whether anything that the store keeps of this server is to change: a new note on the same state is a change.
    pub fn changes(&self, entry: &Entry) -> bool {
        entry.is_change() || (entry.restate && self.note.is_some())
    }
}

/// What was done.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// The upstream.
    pub upstream: UpstreamIndex,
    /// Its number of changes now.
    pub revision: Revision,
    /// The servers that were chosen, and what changed.
    pub entries: Vec<Entry>,
    /// The servers that left.
    pub removed: Vec<Removal>,
    /// The servers that are new, with their ids.
    pub added: Vec<(ServerId, Addition)>,
}

/// Carries out a command: all of it, or nothing.
///
/// # Errors
///
/// Why nothing was changed.
pub fn execute(upstreams: &dyn Upstreams, command: &Command) -> Result<Outcome, OpError> {
    let upstream = upstreams
        .find(&command.upstream)
        .ok_or_else(|| OpError::UpstreamNotFound(command.upstream.clone()))?;
    for _ in 0..ATTEMPTS {
        let plan = plan(upstreams.lookup(upstream)?.as_ref(), command)?;
        match upstreams.commit(upstream, &plan) {
            Ok(Committed { revision, added }) => {
                let added = added.into_iter().zip(plan.added).collect();
                return Ok(Outcome {
                    upstream,
                    revision,
                    entries: plan.entries,
                    removed: plan.removed,
                    added,
                });
            }
            Err(CommitError::Moved) => {}
            Err(CommitError::Refused(error)) => return Err(error),
        }
    }
    Err(OpError::Busy)
}

/// Turns a command into a plan.
///
/// # Errors
///
/// Why it cannot be done.
pub fn plan(lookup: &dyn Lookup, command: &Command) -> Result<Plan, OpError> {
    if let Some(note) = &command.note
        && note.len() > NOTE_MAX
    {
        return Err(OpError::NoteTooLong { len: note.len(), max: NOTE_MAX });
    }
    let mut plan = Plan {
        revision: lookup.revision(),
        membership: lookup.membership(),
        entries: Vec::new(),
        removed: Vec::new(),
        added: Vec::new(),
        client: command.client.clone(),
        note: command.note.clone(),
    };
    match &command.action {
        Action::Set(change) => {
            for selector in &command.servers {
                for peer in &select(lookup, selector)? {
                    if !plan.entries.iter().any(|entry| entry.slot == peer.slot) {
                        plan.entries.push(entry(peer, change, None)?);
                    }
                }
            }
            plan.entries.sort_by_key(|entry| entry.slot);
        }
        Action::Add(addition) => {
            check_addition(lookup, addition)?;
            plan.added.push(addition.clone());
        }
        Action::Remove => {
            let peer = select_one(lookup, &command.servers)?;
            plan.removed.push(Removal {
                id: id(&peer)?,
                slot: peer.slot,
                server: peer.server.clone(),
                name: peer.name.clone(),
                active: peer.active,
            });
        }
        Action::Readdress { address, change } => {
            let peer = select_one(lookup, &command.servers)?;
            plan.entries.push(entry(&peer, change, readdress(&peer, address)?)?);
        }
    }
    check_weights(lookup, &plan)?;
    if !command.force {
        check_guard(lookup, &plan)?;
    }
    Ok(plan)
}

/// The peers that a selector chooses; at least one.
fn select(lookup: &dyn Lookup, selector: &Selector) -> Result<Vec<Peer>, OpError> {
    let peers = lookup.select(selector);
    if !peers.is_empty() {
        return Ok(peers);
    }
    Err(match selector {
        Selector::Position(position) => OpError::BadPosition(*position),
        _ => OpError::ServerNotFound(selector.text()),
    })
}

/// The one peer that is chosen, which may leave or change its address.
fn select_one(lookup: &dyn Lookup, selectors: &[Selector]) -> Result<Peer, OpError> {
    if !lookup.can_change_members() {
        return Err(OpError::MembersNotYet);
    }
    let mut peers = Vec::new();
    for selector in selectors {
        peers.extend(select(lookup, selector)?);
    }
    match peers.as_slice() {
        [] => Err(OpError::ServerNotFound(String::new())),
        [peer] if peer.managed => Err(OpError::ManagedByDns),
        [peer] => Ok(peer.clone()),
        several => Err(OpError::Ambiguous(several.iter().filter_map(|peer| peer.id).collect())),
    }
}

/// Identity of a peer; one that the store had no room for has none, and cannot be changed.
fn id(peer: &Peer) -> Result<ServerId, OpError> {
    peer.id.ok_or_else(|| OpError::ServerNotFound(peer.server.clone()))
}

/// What the command makes of one peer.
fn entry(peer: &Peer, change: &Change, readdress: Option<NewAddress>) -> Result<Entry, OpError> {
    let from = Wish { admin: peer.admin, params: peer.params };
    let mut to = from;
    if let Some(admin) = change.admin {
        to.admin = admin;
    }
    for &(param, value) in &change.params {
        to.params.set(param, value);
    }
    Ok(Entry {
        id: id(peer)?,
        slot: peer.slot,
        server: peer.server.clone(),
        from,
        to,
        revive: change.admin == Some(Admin::Up),
        restate: change.admin.is_some(),
        readdress,
    })
}

/// The address that a peer is to have; none if it has it. Without a port it keeps its own.
fn readdress(peer: &Peer, text: &str) -> Result<Option<NewAddress>, OpError> {
    let present = Address::parse(&peer.name);
    let port = present.as_ref().ok().and_then(Address::port);
    let address =
        Address::parse_with_default_port(text, port.unwrap_or(DEFAULT_PORT)).map_err(OpError::BadAddress)?;
    let same = present.is_ok_and(|present| present == address);
    Ok((!same).then(|| NewAddress { address, from: peer.name.clone() }))
}

/// Refuses a server that is there, or that the upstream has no list for.
fn check_addition(lookup: &dyn Lookup, addition: &Addition) -> Result<(), OpError> {
    if !lookup.can_change_members() {
        return Err(OpError::MembersNotYet);
    }
    let present = lookup.select(&Selector::Server(addition.address.to_string()));
    if present.iter().any(|peer| peer.slot.group == addition.group) {
        return Err(OpError::Exists(addition.address.to_string()));
    }
    if !present.is_empty() {
        return Err(OpError::OtherGroup);
    }
    if addition.group.is_backup() && !lookup.has_backups() {
        return Err(OpError::NoBackup);
    }
    Ok(())
}

/// Refuses to leave fewer usable servers than the guard asks for, unless the change does not make them fewer.
fn check_guard(lookup: &dyn Lookup, plan: &Plan) -> Result<(), OpError> {
    let Some(guard) = lookup.guard() else { return Ok(()) };
    let (usable, all) = lookup.usable();
    let is_up = |admin: Admin| usize::from(admin == Admin::Up);
    let mut left = usable;
    for entry in &plan.entries {
        left = left.saturating_add(is_up(entry.to.admin)).saturating_sub(is_up(entry.from.admin));
    }
    for removal in &plan.removed {
        let was_up = lookup.select(&Selector::Id(removal.id)).iter().any(|peer| peer.admin == Admin::Up);
        left = left.saturating_sub(usize::from(was_up));
    }
    let min = guard.min(all);
    if left < usable && left < min { Err(OpError::Guarded { left, min }) } else { Ok(()) }
}

/// Refuses weights that the method cannot take.
fn check_weights(lookup: &dyn Lookup, plan: &Plan) -> Result<(), OpError> {
    let changes = plan.entries.iter().any(|entry| entry.from.params.weight != entry.to.params.weight);
    if !changes && plan.added.is_empty() {
        return Ok(());
    }
    if changes && !lookup.can_set_weight() {
        return Err(OpError::WeightNotYet(lookup.method()));
    }
    if lookup.method() == Method::HashConsistent {
        let total = plan.entries.iter().fold(lookup.total_weight(), |total, entry| {
            total.saturating_sub(entry.from.params.weight).saturating_add(entry.to.params.weight)
        });
        let total = plan.added.iter().fold(total, |total, added| total.saturating_add(added.params.weight));
        if total > CONSISTENT_WEIGHT_MAX {
            return Err(OpError::WeightTooLarge { total, max: CONSISTENT_WEIGHT_MAX });
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use crate::model::id::Group;
    use crate::model::params::{Param, Params};
    use crate::model::snapshot::{Snapshot, StaticReason};
    use crate::model::state::Failures;

    use super::super::command::Change;
    use super::*;

    use std::cell::Cell;

    /// One upstream whose plans are made by others so often before ours.
    struct Fake {
        /// Its peers.
        peers: Vec<Peer>,
        /// How it chooses.
        method: Method,
        /// Whether weights may change.
        weights: bool,
        /// How often a commit finds that others were faster.
        moved: Cell<usize>,
    }

    impl Upstreams for Fake {
        fn count(&self) -> usize {
            1
        }
        fn find(&self, name: &str) -> Option<UpstreamIndex> {
            (name == "u").then_some(UpstreamIndex(0))
        }
        fn snapshot(&self, _: UpstreamIndex) -> Option<Snapshot> {
            None
        }
        fn lookup(&self, _: UpstreamIndex) -> Result<Box<dyn Lookup + '_>, OpError> {
            Ok(Box::new(self))
        }
        fn commit(&self, _: UpstreamIndex, plan: &Plan) -> Result<Revision, CommitError> {
            match self.moved.get() {
                0 => Ok(Revision(
                    plan.revision.0 + u64::from(plan.entries.iter().any(|entry| plan.changes(entry))),
                )),
                left => {
                    self.moved.set(left - 1);
                    Err(CommitError::Moved)
                }
            }
        }
    }

    impl Lookup for &Fake {
        fn revision(&self) -> Revision {
            Revision(7)
        }
        fn membership(&self) -> u64 {
            3
        }
        fn method(&self) -> Method {
            self.method
        }
        fn can_set_weight(&self) -> bool {
            self.weights
        }
        fn total_weight(&self) -> u64 {
            self.peers.iter().map(|peer| peer.params.weight).sum()
        }
        fn select(&self, selector: &Selector) -> Vec<Peer> {
            self.peers.iter().filter(|peer| selector.chooses(peer)).cloned().collect()
        }
    }

    /// A peer that is up.
    fn peer(id: u64, group: Group, index: usize, server: &str, name: &str) -> Peer {
        Peer {
            id: Some(ServerId(id)),
            slot: Slot { group, index },
            server: server.into(),
            name: name.into(),
            params: Params::default(),
            effective_weight: 1,
            current_weight: 0,
            active: 0,
            down: 0,
            admin: Admin::Up,
            reason: None,
            failures: Failures::default(),
            last_failure: None,
        }
    }

    /// Round robin over a host with two addresses, an IPv6 address, a socket, and a backup.
    fn fake() -> Fake {
        let peers = vec![
            peer(0, Group::Primary, 0, "host:81", "127.0.0.1:81"),
            peer(1, Group::Primary, 1, "host:81", "127.0.0.2:81"),
            peer(2, Group::Primary, 2, "[::1]", "[::1]:80"),
            peer(3, Group::Primary, 3, "unix:/s", "unix:/s"),
            peer(4, Group::Backup, 0, "127.0.0.1:82", "127.0.0.1:82"),
        ];
        Fake { peers, method: Method::RoundRobin, weights: true, moved: Cell::new(0) }
    }

    /// A command of a test.
    fn command(servers: Vec<Selector>, change: Change) -> Command {
        Command { upstream: "u".into(), servers, change, client: "192.0.2.1".into(), note: None }
    }

    /// Up, down or drain.
    fn admin(admin: Admin) -> Change {
        Change { admin: Some(admin), params: Vec::new() }
    }

    /// A new weight.
    fn weight(weight: u64) -> Change {
        Change { admin: None, params: vec![(Param::Weight, weight)] }
    }

    #[test]
    fn selectors_choose_by_position_id_text_and_any_form_of_the_address() {
        let text = |text: &str| Selector::Server(text.into());
        let table = [
            (Selector::Position(1), vec![1]),
            (Selector::Position(4), vec![]),
            (Selector::Id(ServerId(4)), vec![4]),
            (text("host:81"), vec![0, 1]),
            (text("127.0.0.2:81"), vec![1]),
            (text("[::1]"), vec![2]),
            (text("[::1]:80"), vec![2]),
            (text("[0:0:0:0:0:0:0:1]:80"), vec![2]),
            (text("unix:/s"), vec![3]),
            (text("127.0.0.1:82"), vec![4]),
            (text("127.0.0.1"), vec![]),
            (text("host"), vec![]),
            (text(""), vec![]),
        ];
        for (selector, wanted) in table {
            let found: Vec<_> = (&fake()).select(&selector).iter().map(|peer| peer.id.unwrap().0).collect();
            assert_eq!(found, wanted, "{selector:?}");
        }
    }

    #[test]
    fn a_change_names_what_differs_and_nothing_else() {
        let change =
            Change { admin: Some(Admin::Down), params: vec![(Param::Weight, 5), (Param::MaxFails, 1)] };
        let plan = plan(&&fake(), &command(vec![Selector::Id(ServerId(2))], change)).unwrap();
        let [entry] = plan.entries.as_slice() else { panic!("{plan:?}") };
        let differences: Vec<_> = entry.differences().into_iter().map(|d| (d.what, d.from, d.to)).collect();
        let wanted = [("state", "up".into(), "down".into()), ("weight", "1".into(), "5".into())];
        assert_eq!(differences, wanted);
        assert_eq!(
            (plan.revision, plan.membership, entry.revive, entry.restate),
            (Revision(7), 3, false, true)
        );
    }

    #[test]
    fn a_server_chosen_twice_changes_once() {
        let servers = vec![Selector::Position(0), Selector::Server("host:81".into())];
        let plan = plan(&&fake(), &command(servers, admin(Admin::Down))).unwrap();
        assert_eq!(plan.entries.iter().map(|entry| entry.id.0).collect::<Vec<_>>(), [0, 1]);
    }

    #[test]
    fn what_is_so_already_is_no_change_unless_a_note_says_why() {
        let mut up = command(vec![Selector::Position(0)], admin(Admin::Up));
        let outcome = execute(&fake(), &up).unwrap();
        assert_eq!(outcome.revision, Revision(7));
        assert!(outcome.entries[0].revive && !outcome.entries[0].is_change());
        up.note = Some("checked".into());
        assert_eq!(execute(&fake(), &up).unwrap().revision, Revision(8));
    }

    #[test]
    fn one_bad_word_refuses_the_whole_command() {
        let servers = vec![Selector::Position(0), Selector::Server("nobody".into())];
        let refused = execute(&fake(), &command(servers, admin(Admin::Down)));
        assert_eq!(refused.err(), Some(OpError::ServerNotFound("nobody".into())));
        let refused = execute(&fake(), &command(vec![Selector::Position(9)], admin(Admin::Down)));
        assert_eq!(refused.err(), Some(OpError::BadPosition(9)));
        let unknown = Command { upstream: "v".into(), ..command(vec![], Change::default()) };
        assert_eq!(execute(&fake(), &unknown).err(), Some(OpError::UpstreamNotFound("v".into())));
    }

    #[test]
    fn weights_are_refused_where_they_cannot_take_effect() {
        let fixed = Fake { weights: false, method: Method::Random, ..fake() };
        let servers = || vec![Selector::Position(0)];
        let refused = execute(&fixed, &command(servers(), weight(2)));
        assert_eq!(refused.err(), Some(OpError::WeightNotYet(Method::Random)));
        assert!(execute(&fixed, &command(servers(), weight(1))).is_ok(), "no change of the weight");
        assert!(execute(&fixed, &command(servers(), admin(Admin::Down))).is_ok());
    }

    #[test]
    fn consistent_hash_has_a_largest_sum_of_weights() {
        let hash = Fake { method: Method::HashConsistent, ..fake() };
        // Four other servers have a weight of 1.
        let most = CONSISTENT_WEIGHT_MAX - 4;
        assert!(execute(&hash, &command(vec![Selector::Position(0)], weight(most))).is_ok());
        let refused = execute(&hash, &command(vec![Selector::Position(0)], weight(most + 1)));
        let wanted = OpError::WeightTooLarge { total: CONSISTENT_WEIGHT_MAX + 1, max: CONSISTENT_WEIGHT_MAX };
        assert_eq!(refused.err(), Some(wanted));
        assert!(execute(&fake(), &command(vec![Selector::Position(0)], weight(most + 1))).is_ok());
    }

    #[test]
    fn a_command_is_planned_again_when_others_were_faster_but_not_for_ever() {
        let busy = |moved| Fake { moved: Cell::new(moved), ..fake() };
        let down = command(vec![Selector::Position(0)], admin(Admin::Down));
        assert_eq!(execute(&busy(ATTEMPTS - 1), &down).unwrap().revision, Revision(8));
        assert_eq!(execute(&busy(ATTEMPTS), &down).err(), Some(OpError::Busy));
    }

    #[test]
    fn a_note_is_kept_whole_or_refused() {
        let mut down = command(vec![Selector::Position(0)], admin(Admin::Down));
        down.note = Some("n".repeat(NOTE_MAX));
        assert!(execute(&fake(), &down).is_ok());
        down.note = Some("n".repeat(NOTE_MAX + 1));
        assert_eq!(
            execute(&fake(), &down).err(),
            Some(OpError::NoteTooLong { len: NOTE_MAX + 1, max: NOTE_MAX })
        );
    }

    #[test]
    fn errors_say_the_words_of_the_contracts() {
        assert_eq!(OpError::Static(StaticReason::NoZone).to_string(), "only for upstream with 'zone'");
        assert_eq!(OpError::ServerNotFound("x".into()).to_string(), "server or peer is not found");
        assert_eq!(OpError::UpstreamNotFound("x".into()).to_string(), "upstream is not found");
    }
}
