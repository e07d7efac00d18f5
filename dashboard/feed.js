// The feed: fetches the status again and again, less often while that fails, and not while nobody looks.
"use strict";

const INTERVAL = 2000;
const LONGEST_INTERVAL = 30000;
const TIMEOUT = 8000;

/** Where the status is: this very location, as JSON, of the upstream that the page was opened for. */
function statusUri() {
  const uri = new URL(location.href);
  const upstream = uri.searchParams.get("upstream");
  uri.search = "";
  uri.hash = "";
  uri.searchParams.set("format", "json");
  if (upstream !== null) uri.searchParams.set("upstream", upstream);
  return uri;
}

/** What a reply that is no success says: words, and the module's word for programs. */
async function errorOf(reply) {
  try {
    const { text, code } = JSON.parse(await reply.text()).error;
    return { words: text + " (" + reply.status + ")", code };
  } catch {
    // Not from the module: a page of nginx, or of something before it.
    return { words: "the server answered " + reply.status, code: "" };
  }
}

/**
 * The feed. `onData` gets a status and nginx's clock, `onChange` is called when `health` has changed.
 * health: "wait" before the first reply, "good", "paused", "bad" with `problem` in words.
 */
class Feed {
  constructor(onData, onChange) {
    this.onData = onData;
    this.onChange = onChange;
    this.health = "wait";
    this.problem = "";
    this.received = null;
    this.failures = 0;
    this.isPaused = false;
    this.timer = null;
    this.request = null;
    this.cost = 0;
    const wake = () => this.isPaused || this.now();
    document.addEventListener("visibilitychange", wake);
    window.addEventListener("online", wake);
  }

  /** Fetches at once, unless nobody looks. */
  now() {
    clearTimeout(this.timer);
    if (this.request) this.request.abort("another");
    if (!document.hidden) this.fetch();
  }

  /** Pauses, or goes on. */
  pause(isPaused) {
    this.isPaused = isPaused;
    if (isPaused) {
      clearTimeout(this.timer);
      if (this.request) this.request.abort("another");
      this.set("paused", "");
    } else {
      this.now();
    }
  }

  /** Seconds since the data came; null before. */
  age() {
    return this.received === null ? null : (performance.now() - this.received) / 1000;
  }

  set(health, problem) {
    this.health = health;
    this.problem = problem;
    this.onChange();
  }

  async fetch() {
    const request = new AbortController();
    this.request = request;
    const began = performance.now();
    const timeout = setTimeout(() => request.abort("timeout"), TIMEOUT);
    try {
      const reply = await fetch(statusUri(), {
        headers: { Accept: "application/json" },
        cache: "no-store",
        credentials: "same-origin",
        signal: request.signal,
      });
      if (!reply.ok) throw new Error((await errorOf(reply)).words);
      const status = await reply.json();
      if (request.signal.aborted) throw new Error("aborted");
      if (!status || typeof status.upstreams !== "object" || !status.upstreams) throw new Error("the reply is no status");
      this.failures = 0;
      this.received = performance.now();
      this.onData(status, Date.parse(reply.headers.get("Date")) || Date.now());
      this.cost = performance.now() - began;
      this.set(this.isPaused ? "paused" : "good", "");
    } catch (error) {
      // Another has taken its place, or nobody looks.
      if (request.signal.reason === "another") return;
      this.failures += 1;
      this.set("bad", this.reason(request, error));
    } finally {
      clearTimeout(timeout);
      if (this.request === request) this.request = null;
    }
    if (!this.isPaused && !document.hidden) this.timer = setTimeout(() => this.fetch(), this.interval());
  }

  /**
   * Longer where a status takes long to make and to show, so that a page is idle most of the time. Twice as long after
   * each failure, and not the same for all pages that are open.
   */
  interval() {
    const longer = Math.min(INTERVAL * 2 ** this.failures, LONGEST_INTERVAL);
    if (this.failures) return longer * (0.8 + 0.4 * Math.random());
    return Math.min(Math.max(INTERVAL, 10 * this.cost), LONGEST_INTERVAL);
  }

  reason(request, error) {
    if (request.signal.reason === "timeout") return "the server has not answered for " + TIMEOUT / 1000 + " s";
    if (error instanceof TypeError) return "the server cannot be reached";
    return error instanceof SyntaxError ? "the reply is no JSON" : error.message;
  }
}
