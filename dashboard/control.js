// The control location: where changes are sent, and what came of them.
"use strict";

const CHANGE_TIMEOUT = 15000;

/** Where changes are sent; null if nobody said, or if it is not of this site. */
const controlUri = (() => {
  const said = document.documentElement.dataset.control;
  if (!said) return null;
  try {
    const uri = new URL(said, location.origin);
    return uri.origin === location.origin ? uri : null;
  } catch {
    return null;
  }
})();

// Upstreams whose list of servers cannot change, because nginx or the module has said so to an attempt.
const fixedLists = new Set();

/** Whether servers may be changed. */
function canChange(upstream) {
  return controlUri !== null && upstream.dynamic === true;
}

/** Whether servers may be added and removed. */
function canAdd(upstream) {
  return canChange(upstream) && upstream.membership !== false && !fixedLists.has(upstream.name);
}

/** A change that was not made, in words; `code` is the module's word for it, if it is from the module. */
class Refused extends Error {
  constructor(words, code = "") {
    super(words);
    this.code = code;
  }
}

/** What a reply that claims success says, if it is the module's: it names the upstream and its revision. */
async function doneOf(reply, upstream) {
  const done = await reply.json().catch(() => null);
  if (done && done.upstream === upstream.name && Number.isInteger(done.revision)) return done;
  throw new Refused(
    "Something else than the module answered at " + controlUri.pathname + " (" + reply.status + "): it is not known whether the change was made. " +
      "Does control= of this location name the one with upstream_control?"
  );
}

/** Sends a change; returns the reply, or throws `Refused`. */
async function change(upstream, args) {
  const request = new AbortController();
  const timeout = setTimeout(() => request.abort(), CHANGE_TIMEOUT);
  try {
    const reply = await fetch(controlUri, {
      method: "POST",
      // Not all browsers say whose page sends it, and no page of another site can say this.
      headers: { Accept: "application/json", "X-Upstream-Control": "1" },
      body: new URLSearchParams({ upstream: upstream.name, ...args }),
      cache: "no-store",
      credentials: "same-origin",
      redirect: "error",
      signal: request.signal,
    });
    if (reply.ok) {
      const done = await doneOf(reply, upstream);
      if (done.unchanged) throw new Refused("nothing to change: " + done.unchanged);
      return done;
    }
    const { words, code } = await errorOf(reply);
    if (reply.status === 501 && ("add" in args || "remove" in args)) {
      fixedLists.add(upstream.name);
      throw new Refused("This server cannot add or remove servers: " + words);
    }
    if (reply.status === 401 || reply.status === 403) throw new Refused("You may not do that: " + words);
    throw new Refused(words, code);
  } catch (error) {
    if (error instanceof Refused) throw error;
    throw new Refused("No answer. It is not known whether the change was made; the page shows it as soon as it can.");
  } finally {
    clearTimeout(timeout);
  }
}
