// A group: one upstream, with its totals and the table of its servers.
"use strict";

class Group {
  /** `callbacks`: ask(verb, group, peer), sort(column), fold(group), turn(group, by), go(name). */
  constructor(name, callbacks) {
    this.name = name;
    this.callbacks = callbacks;
    this.rows = new Map();
    this.first = 0;
    this.isFolded = false;
    this.node = element("section", "upstream");

    const head = this.node.appendChild(element("div", "head"));
    const title = head.appendChild(element("h2"));
    this.toggle = title.appendChild(button("toggle", "", () => callbacks.fold(this)));
    this.toggle.appendChild(element("span", "chevron", "▾")).setAttribute("aria-hidden", "true");
    this.toggle.appendChild(element("span", "name", name));
    this.totals = head.appendChild(element("div", "totals"));
    this.parts = { size: this.totals.appendChild(element("span")) };
    for (const state of STATES) {
      this.parts[state.name] = this.totals.appendChild(element("span", "count"));
      this.parts[state.name].dataset.state = state.name;
    }
    this.parts.active = this.totals.appendChild(element("span"));
    this.about = head.appendChild(element("div", "about"));
    this.method = this.about.appendChild(element("span"));
    this.zone = this.about.appendChild(element("span", "zone"));
    this.zoneText = this.zone.appendChild(element("span"));
    this.zoneBar = this.zone.appendChild(element("span", "bar")).appendChild(element("span"));
    this.revision = this.about.appendChild(element("span"));
    this.fixed = this.about.appendChild(element("span", "badge"));
    this.add = head.appendChild(button("act add", "Add server", () => callbacks.ask("add", this, null)));
    setAttribute(this.add, "aria-label", "Add a server to " + name);

    // The heads of the table stay below it.
    Group.sizes.observe(head);
    const id = "servers-" + Group.made++;
    this.table = this.node.appendChild(element("table"));
    this.table.id = id;
    setAttribute(this.table, "aria-label", "Servers of " + name);
    this.toggle.setAttribute("aria-controls", id);
    this.heads = this.makeHeads();
    this.body = this.table.appendChild(element("tbody"));
    this.makePart();
    this.empty = this.node.appendChild(element("p", "quiet empty", "No servers."));
    this.pools = new Pools(callbacks.go);
    this.node.appendChild(this.pools.node);
  }

  /** What says which part of the servers is shown, and leads to the others. */
  makePart() {
    this.part = this.node.appendChild(element("p", "quiet part"));
    const turn = (words, by) => {
      const made = this.part.appendChild(button("plain", words, () => this.callbacks.turn(this, by)));
      setAttribute(made, "aria-label", words + " servers of " + this.name);
      return made;
    };
    this.before = turn("Previous", -1);
    this.after = turn("Next", 1);
    // Behind the buttons, which stay where they are.
    this.partText = this.part.appendChild(element("span"));
  }

  makeHeads() {
    const row = this.table.appendChild(element("thead")).appendChild(element("tr"));
    const heads = COLUMNS.map((column) => {
      const node = row.appendChild(element("th", column.name));
      node.scope = "col";
      node.appendChild(button("sort", column.title, () => this.callbacks.sort(column.name)));
      return { column, node };
    });
    row.appendChild(element("th", "actions")).appendChild(element("span", "unseen", "Actions"));
    return heads;
  }

  /** Shows an upstream, of `chosen` servers not more than `room`; returns how many it shows. */
  show(upstream, view, chosen, room) {
    this.upstream = upstream;
    this.showHead(upstream, view);
    if (hasPools(upstream)) return this.showPools(upstream, view);
    // What is not seen is not made: there may be thousands.
    const shown = this.isFolded ? [] : this.partOf(sorted(chosen, view.order), room);
    this.showRows(upstream, shown, view);
    this.showPart(chosen.length, shown.length);
    this.hideAll();
    return shown.length;
  }

  /** The part of the servers that is shown. */
  partOf(peers, room) {
    this.size = room;
    if (this.first >= peers.length) this.first = 0;
    return peers.slice(this.first, this.first + room);
  }

  showPart(all, shown) {
    setHidden(this.part, this.isFolded || all === shown);
    const which = shown ? this.first + 1 + "–" + (this.first + shown) : "none";
    const hint = shown ? "" : ": " + ROWS_MAX + " are shown at a time, fold other upstreams";
    setText(this.partText, which + " of " + plural(all, "server") + hint);
    setDisabled(this.before, this.first === 0);
    setDisabled(this.after, shown === 0 || this.first + shown >= all);
  }

  /** Turns to another part. */
  turn(by) {
    this.first = Math.max(0, this.first + by * (this.size || ROWS_MAX));
  }

  /** Shows one that has no servers but pools; none of its servers is to be seen. */
  showPools(upstream, view) {
    this.pools.show(upstream, view.now);
    this.showPart(0, 0);
    this.hideAll();
    return 0;
  }

  /** Hides what is folded, and what an upstream of its kind does not have. */
  hideAll() {
    const isOfPools = this.upstream !== undefined && hasPools(this.upstream);
    setHidden(this.table, this.isFolded || isOfPools);
    setHidden(this.pools.node, this.isFolded || !isOfPools);
    if (this.upstream) setHidden(this.empty, this.upstream.peers.length > 0 || this.isFolded || isOfPools);
  }

  showRows(upstream, peers, view) {
    const focus = this.focusInRows();
    const present = new Set();
    const nodes = peers.map((peer) => {
      present.add(peer.key);
      let row = this.rows.get(peer.key);
      if (!row) {
        row = new Row((verb, pressed) => this.callbacks.ask(verb, this, pressed.peer));
        this.rows.set(peer.key, row);
      }
      row.show(upstream, peer, view.now);
      return row.node;
    });
    for (const key of this.rows.keys()) {
      if (!present.has(key)) this.rows.delete(key);
    }
    setChildren(this.body, nodes);
    if (focus && !focus.row.node.isConnected) this.focusNear(focus);
    for (const { column, node } of this.heads) {
      const isOrder = column.name === view.order.column;
      setAttribute(node, "aria-sort", isOrder ? (view.order.descending ? "descending" : "ascending") : null);
    }
  }

  /** The row that has the focus, its place, and its button; null if none has. */
  focusInRows() {
    const focused = document.activeElement;
    if (!focused || !this.body.contains(focused)) return null;
    const place = [...this.body.children].indexOf(focused.closest("tr"));
    const row = [...this.rows.values()].find((found) => found.node.contains(focused));
    return row ? { row, place, verb: row.verbOf(focused) } : null;
  }

  /** Gives the focus of a row that is gone to the one that is in its place. */
  focusNear({ place, verb }) {
    const node = this.body.children[Math.min(place, this.body.children.length - 1)];
    const row = [...this.rows.values()].find((found) => found.node === node);
    const target = row && !this.isFolded ? row.target(verb) : null;
    (target || this.toggle).focus({ preventScroll: true });
  }

  showHead(upstream, view) {
    const counted = count(upstream.peers);
    const isOfPools = hasPools(upstream);
    setText(this.parts.size, isOfPools ? plural(upstream.pools.length, "pool") : plural(counted.all, "server"));
    for (const state of STATES) {
      const found = counted.states[state.name] || 0;
      setText(this.parts[state.name], state.sign + " " + found + " " + state.word);
      setHidden(this.parts[state.name], found === 0);
    }
    setText(this.parts.active, isShared(upstream) ? counted.active + " active" : "");
    if (isOfPools) {
      const since = " for " + ago(upstream.since, view.now).replace(" ago", "");
      setText(this.parts.active, (upstream.active === null ? "none active" : upstream.active + " active") + since);
    }
    setAttribute(this.node, "data-worst", isOfPools ? worstOfPools(upstream) : this.worst(counted));

    setText(this.method, upstream.method || "unknown method");
    const used = upstream.zone_memory;
    const part = used ? Math.round((100 * used.used) / Math.max(1, used.used + used.free)) : 0;
    setText(this.zoneText, upstream.zone === null ? (isOfPools ? "" : "no zone") : "zone " + upstream.zone + (used ? ", " + part + " % used" : ""));
    setHidden(this.zoneBar.parentNode, !used);
    const width = part + "%";
    if (this.zoneBar.style.width !== width) this.zoneBar.style.width = width;
    setAttribute(this.zone, "data-full", part >= 80 ? "yes" : null);
    const inBytes = used ? bytes(used.used) + " of " + bytes(used.used + used.free) + " used, " + used.pages.free + " pages free" : null;
    setAttribute(this.zone, "title", inBytes);
    setText(this.revision, upstream.dynamic ? "revision " + upstream.revision : "");
    setText(this.fixed, upstream.dynamic || isOfPools ? "" : "static: " + (upstream.reason || "unknown"));
    setHidden(this.fixed, upstream.dynamic || isOfPools);
    setHidden(this.add, !canAdd(upstream));
  }

  /** The word for how an upstream fares as a whole. */
  worst(counted) {
    const up = counted.states.up || 0;
    if (up === 0 && counted.all > 0) return "none";
    return up === counted.all ? "up" : "some";
  }

  fold(isFolded) {
    this.isFolded = isFolded;
    setAttribute(this.toggle, "aria-expanded", String(!isFolded));
    this.hideAll();
  }
}

Group.made = 0;
Group.sizes = new ResizeObserver((entries) => {
  for (const { target } of entries) target.parentNode?.style.setProperty("--head", target.offsetHeight + "px");
});

/** A size in KiB or MiB. */
function bytes(size) {
  return size < 1048576 ? Math.round(size / 1024) + " KiB" : (size / 1048576).toFixed(1) + " MiB";
}
