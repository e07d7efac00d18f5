// The page as a whole: what is shown of the last status, and what keys and buttons do to that.
"use strict";

const app = {
  upstreams: [],
  groups: new Map(),
  clock: 0,
  view: { order: { column: "", descending: false }, filter: { words: [], states: new Set(), isSet: false }, now: 0 },
  folded: new Set(),
  isFirst: true,
};

/** With more servers than this all upstreams are folded until somebody unfolds them. */
const MANY_SERVERS = 1000;

/** Rows of servers, and upstreams, that are shown at a time: with more of them a browser takes too long. */
const ROWS_MAX = 200;
const GROUPS_MAX = 200;

/** Milliseconds without a key after which the filter is applied. */
const FILTER_DELAY = 120;

const feed = new Feed(takeStatus, showHealth);
const ask = new Ask((words) => {
  say(words);
  feed.now();
}, say);

// === the status ===

function takeStatus(status, now) {
  app.upstreams = upstreamsOf(status);
  app.clock = now - performance.now();
  if (app.isFirst) app.folded = foldedAtFirst();
  app.isFirst = false;
  render();
  ask.update(app.upstreams);
}

/** Names of the upstreams that are folded when the page opens. */
function foldedAtFirst() {
  const remembered = ofThisTab.get("folded");
  if (Array.isArray(remembered)) return new Set(remembered);
  const isMuch = app.upstreams.length > 1 && app.upstreams.flatMap((upstream) => upstream.peers).length > MANY_SERVERS;
  return new Set(isMuch ? app.upstreams.map((upstream) => upstream.name) : []);
}

/** Shows the last status. */
function render() {
  app.view.now = app.clock + performance.now();
  const { filter } = app.view;
  const present = new Map();
  let chosen = 0;
  let room = ROWS_MAX;
  let left = 0;
  for (const upstream of app.upstreams) {
    const peers = filter.isSet ? upstream.peers.filter((peer) => isChosen(upstream, peer, filter)) : upstream.peers;
    chosen += peers.length;
    if (!isSeen(upstream, peers, filter)) continue;
    if (present.size === GROUPS_MAX) {
      left += 1;
      continue;
    }
    const group = groupOf(upstream.name);
    present.set(upstream.name, group.node);
    room -= group.show(upstream, app.view, peers, room);
  }
  for (const name of app.groups.keys()) {
    if (!present.has(name)) app.groups.delete(name);
  }
  const upstreams = byId("upstreams");
  const hadFocus = upstreams.contains(document.activeElement);
  setChildren(upstreams, [...present.values()]);
  if (hadFocus && !upstreams.contains(document.activeElement)) upstreams.focus({ preventScroll: true });
  setText(byId("more"), left ? "and " + plural(left, "upstream") + " more: filter by name" : "");
  showTotals(chosen);
}

/** Whether an upstream is to be seen: without a filter all are. */
function isSeen(upstream, chosen, filter) {
  if (hasPools(upstream)) return isChosenWithPools(upstream, filter);
  return chosen.length > 0 || !filter.isSet;
}

/** The group of an upstream, made if it is not there. */
function groupOf(name) {
  let group = app.groups.get(name);
  if (!group) {
    group = new Group(name, { ask: askFor, sort: sortBy, fold: toggleFold, turn, go: goTo });
    group.fold(app.folded.has(name));
    app.groups.set(name, group);
  }
  return group;
}

function turn(group, by) {
  group.turn(by);
  render();
}

function showTotals(chosen) {
  const counted = count(app.upstreams.flatMap((upstream) => upstream.peers));
  const active = count(app.upstreams.filter(isShared).flatMap((upstream) => upstream.peers)).active;
  setText(byId("totals"), plural(app.upstreams.length, "upstream") + ", " + plural(counted.all, "server") + ", " + active + " active");
  for (const state of STATES) {
    const found = counted.states[state.name] || 0;
    setText(stateButtons[state.name].number, found);
    const isSet = app.view.filter.states.has(state.name);
    setAttribute(stateButtons[state.name].node, "data-none", found ? null : "yes");
    setHidden(stateButtons[state.name].node, Boolean(state.rare) && !found && !isSet);
  }
  const isFiltered = app.view.filter.isSet;
  const shown = byId("shown");
  setText(shown, isFiltered ? chosen + " of " + plural(counted.all, "server") + " shown" : "");
  const nothing = byId("nothing");
  const isAnything = chosen > 0 || app.groups.size > 0;
  setHidden(nothing, isAnything || (!isFiltered && app.upstreams.length > 0));
  setText(nothing, isFiltered ? "No server is like that. Escape clears the filter." : "There are no upstreams.");
  const trouble = counted.states.unavail || 0;
  const title = (trouble ? "▲ " + trouble + " unavail · " : "") + "Upstreams · " + location.host;
  if (document.title !== title) document.title = title;
  const isFolded = app.upstreams.length > 0 && app.upstreams.every((upstream) => app.folded.has(upstream.name));
  setText(byId("fold"), isFolded ? "Unfold all" : "Fold all");
}

function askFor(verb, group, peer) {
  ask.open(verb, group.upstream, peer);
}

/** Tells of a change that was made, for a while. */
function say(words) {
  clearTimeout(app.said);
  setText(byId("said"), words);
  if (words) app.said = setTimeout(() => setText(byId("said"), ""), 8000);
}

// === how it fares ===

function showHealth() {
  byId("age").dataset.health = feed.health;
  document.body.classList.toggle("stale", feed.health === "bad");
  const words = feed.health === "bad" ? "No new data: " + feed.problem + "." : "";
  setText(byId("problem-text"), words && words + (feed.age() === null ? "" : " This is the state from before."));
  setHidden(byId("problem"), !words);
  showAge();
}

function showAge() {
  const age = feed.age();
  const words = { wait: "loading", good: "updated ", paused: "paused, ", bad: "last data " }[feed.health];
  setText(byId("age-text"), age === null ? (feed.health === "bad" ? "no data" : words) : words + duration(age) + " ago");
}

// === what is chosen ===

const stateButtons = {};
for (const state of STATES) {
  const node = button("state-filter", "", () => {
    const { states } = app.view.filter;
    if (!states.delete(state.name)) states.add(state.name);
    refilter();
  });
  node.dataset.state = state.name;
  node.title = state.help;
  const sign = node.appendChild(element("span", "sign", state.sign));
  sign.setAttribute("aria-hidden", "true");
  const number = node.appendChild(element("span", "number", "0"));
  node.appendChild(element("span", "", " " + state.word));
  node.setAttribute("aria-pressed", "false");
  stateButtons[state.name] = { node, number };
  byId("states").appendChild(node);
}

/** The filter is applied when nothing was typed for a moment. */
function refilterSoon() {
  clearTimeout(app.typed);
  app.typed = setTimeout(refilter, FILTER_DELAY);
}

function refilter() {
  clearTimeout(app.typed);
  const { filter } = app.view;
  filter.words = byId("filter").value.toLowerCase().split(/\s+/).filter(Boolean);
  filter.isSet = filter.words.length > 0 || filter.states.size > 0;
  for (const state of STATES) {
    stateButtons[state.name].node.setAttribute("aria-pressed", String(filter.states.has(state.name)));
  }
  render();
}

/** The next order of a column: ascending, descending, as nginx has it. Numbers begin with the largest. */
function sortBy(name) {
  const { order } = app.view;
  const first = Boolean(COLUMNS.find((column) => column.name === name)?.number);
  if (order.column !== name) app.view.order = { column: name, descending: first };
  else if (order.descending === first) app.view.order = { column: name, descending: !first };
  else app.view.order = { column: "", descending: false };
  byId("sort").value = app.view.order.column;
  render();
}

function toggleFold(group) {
  const { name } = group.upstream;
  if (!app.folded.delete(name)) app.folded.add(name);
  group.fold(app.folded.has(name));
  keepFolds();
}

/** Brings an upstream into sight. */
function goTo(name) {
  const group = app.groups.get(name);
  if (!group) return;
  if (app.folded.has(name)) toggleFold(group);
  group.node.scrollIntoView({ block: "start" });
  group.toggle.focus({ preventScroll: true });
}

function foldAll() {
  const isFolding = app.upstreams.some((upstream) => !app.folded.has(upstream.name));
  app.folded = new Set(isFolding ? app.upstreams.map((upstream) => upstream.name) : []);
  for (const group of app.groups.values()) group.fold(isFolding);
  keepFolds();
}

function keepFolds() {
  ofThisTab.set("folded", [...app.folded]);
  render();
}

// === light and dark ===

const THEMES = ["system", "light", "dark"];
const prefersDark = window.matchMedia("(prefers-color-scheme: dark)");
let theme = THEMES.includes(ofThisBrowser.get("theme")) ? ofThisBrowser.get("theme") : "system";

function showTheme() {
  const isDark = theme === "dark" || (theme === "system" && prefersDark.matches);
  document.documentElement.dataset.theme = isDark ? "dark" : "light";
  setText(byId("theme"), "Theme: " + theme);
}

function nextTheme() {
  theme = THEMES[(THEMES.indexOf(theme) + 1) % THEMES.length];
  ofThisBrowser.set("theme", theme);
  showTheme();
}

// === keys and buttons ===

function togglePause() {
  feed.pause(!feed.isPaused);
  byId("pause").setAttribute("aria-pressed", String(feed.isPaused));
  setText(byId("pause"), feed.isPaused ? "Resume" : "Pause");
}

function onKey(event) {
  if (event.ctrlKey || event.metaKey || event.altKey || byId("ask").open) return;
  const isTyping = event.target.matches("input, select, textarea");
  if (event.key === "Escape") {
    byId("filter").value = "";
    app.view.filter.states.clear();
    refilter();
    if (isTyping) event.target.blur();
  } else if (!isTyping && { "/": 1, p: 1, t: 1, f: 1 }[event.key]) {
    event.preventDefault();
    if (event.key === "/") byId("filter").select();
    if (event.key === "/") byId("filter").focus();
    if (event.key === "p") togglePause();
    if (event.key === "t") nextTheme();
    if (event.key === "f") foldAll();
  }
}

for (const column of [{ name: "", title: "configuration" }, ...COLUMNS]) {
  const option = element("option", "", column.title);
  option.value = column.name;
  byId("sort").appendChild(option);
}
byId("sort").addEventListener("change", (event) => {
  app.view.order = { column: "", descending: false };
  if (event.target.value) sortBy(event.target.value);
  else render();
});
byId("filter").addEventListener("input", refilterSoon);
byId("fold").addEventListener("click", foldAll);
byId("pause").addEventListener("click", togglePause);
byId("retry").addEventListener("click", () => feed.now());
byId("theme").addEventListener("click", nextTheme);
prefersDark.addEventListener("change", showTheme);
document.addEventListener("keydown", onKey);

// The heads of tables stay below the bar, whose height depends on the width.
new ResizeObserver(() => {
  document.documentElement.style.setProperty("--bar", byId("bar").offsetHeight + "px");
}).observe(byId("bar"));

setText(byId("host"), location.host);
showTheme();
setInterval(showAge, 1000);
feed.now();
