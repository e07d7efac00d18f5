// A row: one server. It is made once, and then only what has changed is written.
"use strict";

/** What can be asked of a server, by its state. */
const VERBS = {
  up: { title: "Up", when: (state) => state !== "up" },
  down: { title: "Down", when: (state) => state !== "down" },
  drain: { title: "Drain", when: (state) => state !== "draining" && state !== "down" },
  remove: { title: "Remove", when: () => true },
};

class Row {
  /** `ask(verb, row)` is called when a button was pressed. */
  constructor(ask) {
    this.node = element("tr");
    const cell = (name) => {
      const made = this.node.appendChild(element("td", name));
      const column = COLUMNS.find((found) => found.name === name);
      made.dataset.title = column ? column.title : "";
      return made;
    };
    this.id = cell("id");

    const server = cell("server");
    this.server = server.appendChild(element("span", "address"));
    this.backup = server.appendChild(element("span", "badge", "backup"));
    this.address = server.appendChild(element("span", "second"));

    const state = cell("state");
    const badge = state.appendChild(element("span", "state-badge"));
    this.sign = badge.appendChild(element("span", "sign"));
    this.sign.setAttribute("aria-hidden", "true");
    this.word = badge.appendChild(element("span"));
    this.since = state.appendChild(element("span", "since"));
    this.why = state.appendChild(element("span", "second"));

    const weight = cell("weight");
    this.weight = weight.appendChild(element("span"));
    this.weightButton = weight.appendChild(button("value", "", () => ask("weight", this)));
    this.weightButton.title = "Change the weight";
    this.effective = weight.appendChild(element("span", "second"));

    const active = cell("active");
    this.active = active.appendChild(element("span"));
    this.most = active.appendChild(element("span", "quiet"));

    const fails = cell("fails");
    this.fails = fails.appendChild(element("span"));
    this.maxFails = fails.appendChild(element("span", "quiet"));

    this.failure = cell("failure").appendChild(element("span"));

    this.actions = cell("actions");
    this.buttons = {};
    for (const [verb, { title }] of Object.entries(VERBS)) {
      this.buttons[verb] = this.actions.appendChild(button("act " + verb, title, () => ask(verb, this)));
    }
  }

  /** Shows a peer; `now` is nginx's clock. */
  show(upstream, peer, now) {
    this.peer = peer;
    const state = stateOf(peer.state);
    setAttribute(this.node, "data-state", state.name);
    setText(this.id, peer.id === undefined ? "" : peer.id);
    setText(this.server, peer.server);
    setHidden(this.backup, !peer.backup);
    setText(this.address, peer.name === peer.server ? "" : peer.name);

    setText(this.sign, state.sign);
    setText(this.word, state.word);
    this.showReason(peer, now);

    const isChangeable = canChange(upstream) && peer.id !== undefined;
    setText(this.weight, isChangeable ? "" : peer.weight);
    setText(this.weightButton, peer.weight);
    setAttribute(this.weightButton, "aria-label", "Weight " + peer.weight + " of " + peer.server + " of " + upstream.name + ", change");
    setHidden(this.weightButton, !isChangeable);
    const isLower = peer.effective_weight < peer.weight && peer.state === "up";
    setText(this.effective, isLower ? "now " + Math.max(0, peer.effective_weight) : "");

    setText(this.active, isShared(upstream) ? peer.active : "–");
    setText(this.most, peer.max_conns ? " / " + peer.max_conns : "");
    const isFull = peer.max_conns > 0 && peer.active >= peer.max_conns;
    setAttribute(this.active, "class", isFull ? "full" : peer.active ? "" : "quiet");

    setText(this.fails, isShared(upstream) ? peer.fails : "–");
    setAttribute(this.fails, "class", peer.fails ? "some" : "quiet");
    setText(this.maxFails, peer.max_fails ? " / " + peer.max_fails : " / never");
    setAttribute(this.fails.parentNode, "title", this.failsInWords(peer));
    setText(this.failure, peer.last_failure ? ago(peer.last_failure, now) : "");
    setAttribute(this.failure, "title", peer.last_failure ? localTime(peer.last_failure) : null);

    this.showButtons(upstream, peer, isChangeable);
  }

  /** The verb of a button of this row; "weight" for that of the weight. */
  verbOf(node) {
    return Object.keys(this.buttons).find((verb) => this.buttons[verb] === node) || "weight";
  }

  /** The button for a verb, or another if that is not offered; null if none is. */
  target(verb) {
    const offered = (node) => node && !node.hidden && !node.classList.contains("away");
    return [this.buttons[verb], ...Object.values(this.buttons), this.weightButton].find(offered) || null;
  }

  showReason(peer, now) {
    const reason = peer.reason || {};
    const isUp = peer.state === "up";
    // That somebody brought it up is told by the title only.
    setText(this.since, reason.at && !isUp ? ago(reason.at, now).replace(" ago", "") : "");
    setAttribute(this.since, "title", reason.at ? "since " + localTime(reason.at) : null);
    // Who asked for it: a user is known where a password was asked for.
    const by = reason.user ? reason.user + " at " + reason.client : reason.client;
    let why = "";
    if (reason.by === "operator") why = reason.note || (isUp ? "" : "by " + by);
    else if (reason.by === "configuration") why = isUp ? "" : "by configuration";
    else if (reason.by === "failures") why = "max_fails reached, left alone for " + peer.fail_timeout;
    else if (reason.by === "retry") why = "max_fails reached, the next request tries it";
    setText(this.why, why);
    setAttribute(this.why, "title", by ? "by " + by + ", " + localTime(reason.at) : null);
  }

  failsInWords(peer) {
    if (!peer.max_fails) return "failures are not counted (max_fails=0)";
    return "left alone for " + peer.fail_timeout + " after " + plural(peer.max_fails, "failure");
  }

  showButtons(upstream, peer, isChangeable) {
    const isAddable = canAdd(upstream);
    const focused = document.activeElement;
    for (const [verb, { title, when }] of Object.entries(VERBS)) {
      const node = this.buttons[verb];
      setHidden(node, !isChangeable || (verb === "remove" && !isAddable));
      node.classList.toggle("away", !when(peer.state));
      setAttribute(node, "aria-label", title + " " + peer.server + " of " + upstream.name);
    }
    // A browser takes the focus away from what is no longer offered.
    if (focused && focused.classList.contains("away") && this.node.contains(focused)) this.target("up")?.focus({ preventScroll: true });
  }
}
