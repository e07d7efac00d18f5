// The pools of an upstream that has pools in the place of servers: which is active, since when, and why not a better one.
"use strict";

/** The parts that a pool plays; the sign tells them apart without colour. `state` is that of a server of the same colour. */
const STANDINGS = {
  active: { sign: "●", state: "up", help: "requests are handed to it" },
  standby: { sign: "○", state: "other", help: "has usable servers, as a better one does" },
  waiting: { sign: "◌", state: "draining", help: "has usable servers again, and waits for its failback" },
  unavail: { sign: "▲", state: "unavail", help: "has no usable server" },
};

/** Whether an upstream has pools in the place of servers. */
function hasPools(upstream) {
  return Array.isArray(upstream.pools);
}

/** Whether it is to be seen: servers have states, pools have none of these. */
function isChosenWithPools(upstream, filter) {
  const text = [upstream.name, ...upstream.pools.map((pool) => pool.pool)].join("\n").toLowerCase();
  return filter.states.size === 0 && filter.words.every((word) => text.includes(word));
}

/** How an upstream with pools fares: well with its best one. */
function worstOfPools(upstream) {
  if (upstream.active === null) return "none";
  return upstream.pools[0].pool === upstream.active ? "up" : "some";
}

class Pools {
  /** `go(name)` is called when the name of a pool was pressed. */
  constructor(go) {
    this.go = go;
    this.node = element("ol", "pools");
    this.rows = [];
  }

  show(upstream, now) {
    while (this.rows.length < upstream.pools.length) this.rows.push(this.makeRow());
    this.rows.length = upstream.pools.length;
    setChildren(this.node, this.rows.map((row) => row.node));
    upstream.pools.forEach((pool, at) => this.showRow(this.rows[at], upstream, pool, now));
  }

  makeRow() {
    const row = { node: element("li") };
    const badge = row.node.appendChild(element("span", "state-badge"));
    row.sign = badge.appendChild(element("span", "sign"));
    row.sign.setAttribute("aria-hidden", "true");
    row.word = badge.appendChild(element("span"));
    row.badge = badge;
    row.name = row.node.appendChild(button("link", "", () => this.go(row.pool)));
    row.since = row.node.appendChild(element("span", "since"));
    row.about = row.node.appendChild(element("span", "quiet"));
    row.why = row.node.appendChild(element("span", "why"));
    return row;
  }

  showRow(row, upstream, pool, now) {
    const standing = STANDINGS[pool.state] || { sign: "?", state: "other", help: "" };
    row.pool = pool.pool;
    setAttribute(row.node, "data-state", standing.state);
    setAttribute(row.badge, "title", standing.help);
    setText(row.sign, standing.sign);
    setText(row.word, pool.state);
    setText(row.name, pool.pool);
    setAttribute(row.name, "aria-label", pool.pool + ", a pool of " + upstream.name);
    const isActive = pool.pool === upstream.active;
    setText(row.since, isActive ? "for " + ago(upstream.since, now).replace(" ago", "") : "");
    setAttribute(row.since, "title", isActive ? "since " + localTime(upstream.since) : null);
    const failback = pool.failback === "0s" ? "" : ", failback " + pool.failback;
    setText(row.about, "priority " + pool.priority + failback);
    setText(row.why, pool.why || "");
  }
}
