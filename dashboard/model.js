// The status as the page thinks of it: what is counted, chosen and put in order, and what would remain of an upstream.
// Nothing here touches the page.
"use strict";

/**
 * The states in the order of how much they want to be seen; the sign tells them apart without colour. Those that need
 * active checks are rare: nothing is said of them where no server is in them.
 */
const STATES = [
  { name: "unhealthy", sign: "✖", word: "unhealthy", help: "has failed its checks", rare: true },
  { name: "unavail", sign: "▲", word: "unavail", help: "left alone after failures, then tried by one request" },
  { name: "down", sign: "■", word: "down", help: "taken down" },
  { name: "draining", sign: "◐", word: "draining", help: "takes no new requests" },
  { name: "checking", sign: "◌", word: "checking", help: "was not checked yet", rare: true },
  { name: "up", sign: "●", word: "up", help: "takes requests" },
];
const OTHER_STATE = { name: "other", sign: "?", word: "", help: "" };

function stateOf(name) {
  return STATES.find((state) => state.name === name) || { ...OTHER_STATE, word: String(name) };
}

/** The columns by which servers are sorted. */
const COLUMNS = [
  { name: "id", title: "Id", of: (peer) => peer.place },
  { name: "server", title: "Server", of: (peer) => peer.server },
  { name: "state", title: "State", of: (peer) => STATES.findIndex((state) => state.name === peer.state) },
  { name: "weight", title: "Weight", of: (peer) => peer.weight, number: true },
  { name: "active", title: "Active", of: (peer) => peer.active, number: true },
  { name: "fails", title: "Fails", of: (peer) => peer.fails, number: true },
  { name: "failure", title: "Last failure", of: (peer) => Date.parse(peer.last_failure || 0), number: true },
];

/** The upstreams of a reply, in its order. Peers get a key that is theirs for as long as the page is open. */
function upstreamsOf(status) {
  return Object.entries(status.upstreams).map(([name, upstream]) => ({
    ...upstream,
    name,
    peers: upstream.peers.map((peer, place) => ({
      ...peer,
      place: peer.id === undefined ? place : peer.id,
      // An id is a server's for ever; without one it is the place.
      key: peer.id === undefined ? "place " + place : "id " + peer.id,
    })),
  }));
}

/** How many peers are in each state, and how many requests they serve. */
function count(peers) {
  const found = { all: peers.length, active: 0, states: {} };
  for (const peer of peers) {
    found.active += peer.active;
    found.states[peer.state] = (found.states[peer.state] || 0) + 1;
  }
  return found;
}

/** Whether nginx counts for all workers together. Without a zone each has numbers of its own, and these are of one. */
function isShared(upstream) {
  return upstream.zone !== null;
}

/** Whether a peer is to be seen. */
function isChosen(upstream, peer, filter) {
  if (filter.states.size && !filter.states.has(peer.state)) return false;
  if (!filter.words.length) return true;
  // Made once for a status: a filter is typed key by key.
  peer.text ??= textOf(upstream, peer);
  return filter.words.every((word) => peer.text.includes(word));
}

/** What the filter looks at. */
function textOf(upstream, peer) {
  const note = (peer.reason && peer.reason.note) || "";
  return [upstream.name, peer.server, peer.name, peer.state, note, peer.backup ? "backup" : ""].join("\n").toLowerCase();
}

const collator = new Intl.Collator(undefined, { numeric: true });

/** The peers in the order of a column; equal ones, and all without a column, stay as nginx has them. */
function sorted(peers, order) {
  const column = COLUMNS.find((found) => found.name === order.column);
  if (!column) return peers;
  const compare = (a, b) => {
    const [x, y] = [column.of(a), column.of(b)];
    return typeof x === "string" ? collator.compare(x, y) : x - y;
  };
  return [...peers].sort((a, b) => (order.descending ? -compare(a, b) : compare(a, b)));
}

/**
 * What would remain if a peer were no longer there for new requests: `up` of `all` servers, and whether that is nothing.
 * A server that nginx leaves alone at the moment is not counted on. Backups take over where no primary is left.
 */
function remains(upstream, peer, isRemoval) {
  const others = upstream.peers.filter((other) => other.key !== peer.key);
  const all = isRemoval ? others : upstream.peers;
  const count = (peers, backup, state) =>
    peers.filter((other) => other.backup === backup && (!state || other.state === state)).length;
  const left = {
    primaries: { up: count(others, false, "up"), all: count(all, false) },
    backups: { up: count(others, true, "up"), all: count(all, true) },
  };
  left.isNothing = left.primaries.up + left.backups.up === 0;
  return left;
}

/** The same in words. */
function remainsInWords(left) {
  const { primaries, backups } = left;
  const backupsUp = backups.all ? ", and " + backups.up + " of " + plural(backups.all, "backup") : "";
  return primaries.up + " of " + plural(primaries.all, "server") + " " + (primaries.all === 1 ? "stays" : "stay") + " up" + backupsUp + ".";
}
