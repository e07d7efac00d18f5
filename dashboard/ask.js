// The dialog: asks before a change, says what would remain, and shows what came of it.
"use strict";

/** What is asked for each verb: title, the word on the button, and the arguments. */
const QUESTIONS = {
  up: {
    title: (peer, upstream) => "Bring " + peer.server + " of " + upstream.name + " up?",
    go: "Bring up",
    done: (peer) => peer.server + " is up",
    args: () => ({ up: "" }),
    fields: ["note"],
  },
  down: {
    title: (peer, upstream) => "Take " + peer.server + " of " + upstream.name + " down?",
    go: "Take down",
    done: (peer) => peer.server + " is down",
    args: () => ({ down: "" }),
    fields: ["note"],
    loses: true,
  },
  drain: {
    title: (peer, upstream) => "Drain " + peer.server + " of " + upstream.name + "?",
    go: "Drain",
    done: (peer) => peer.server + " takes no new requests",
    args: () => ({ drain: "" }),
    fields: ["note"],
    loses: true,
  },
  weight: {
    title: (peer, upstream) => "Weight of " + peer.server + " of " + upstream.name,
    go: "Change",
    done: (peer, values) => peer.server + " has weight " + values.weight,
    args: (values) => ({ weight: values.weight }),
    fields: ["weight"],
  },
  remove: {
    title: (peer, upstream) => "Remove " + peer.server + " from " + upstream.name + "?",
    go: "Remove",
    done: (peer) => peer.server + " is removed",
    args: () => ({ remove: "" }),
    fields: [],
    loses: true,
  },
  add: {
    title: (peer, upstream) => "Add a server to " + upstream.name,
    go: "Add",
    done: (peer, values) => values.server + " is added",
    args: (values) => ({ add: "", server: values.server, ...(values.weight && { weight: values.weight }), ...(values.backup && { backup: "" }) }),
    fields: ["server", "weight", "backup"],
  },
};

/** Longest note that the module keeps, in bytes. */
const NOTE_MAX = 128;

/** The fields. `check` returns what is wrong with a value, in words. */
const FIELDS = {
  server: { label: "Address", hint: "10.0.0.1:8080, [::1]:8080 or unix:/path", check: (text) => (text ? "" : "An address is needed.") },
  weight: {
    label: "Weight",
    hint: "1 if empty",
    mode: "numeric",
    check: (text, verb) => (/^[1-9][0-9]{0,6}$/.test(text) || (verb === "add" && !text) ? "" : "A weight is a whole number from 1. To send a server nothing, drain it."),
  },
  backup: { label: "Backup: takes requests only when no other server is there", type: "checkbox", check: () => "" },
  note: {
    label: "Note, for whoever looks at this next",
    hint: "optional",
    check: (text) => (new TextEncoder().encode(text).length > NOTE_MAX ? "That note is too long: " + NOTE_MAX + " bytes are kept." : ""),
  },
};

class Ask {
  /** `onDone(words)` is called after a change, `onCancel(words)` when there is something to say without one. */
  constructor(onDone, onCancel) {
    this.onDone = onDone;
    this.onCancel = onCancel;
    this.dialog = byId("ask");
    this.parts = {};
    for (const part of ["title", "fields", "remains", "under-way", "danger", "danger-text", "word", "error", "go", "cancel", "form"]) {
      this.parts[part] = byId("ask-" + part);
    }
    this.parts.form.addEventListener("submit", (event) => {
      event.preventDefault();
      this.send();
    });
    this.parts.cancel.addEventListener("click", () => this.dialog.close());
    this.parts.form.addEventListener("keydown", (event) => this.onKey(event));
    this.parts.word.addEventListener("input", () => this.showGo());
    // A click beside the dialog; one inside it is on something in the form.
    this.dialog.addEventListener("mousedown", (event) => {
      if (event.target === this.dialog && !this.isSending) this.dialog.close();
    });
    this.dialog.addEventListener("cancel", (event) => {
      if (this.isSending) event.preventDefault();
    });
    this.dialog.addEventListener("close", () => {
      this.question = null;
      // What opened it may be gone by now, or no longer offered.
      const beside = this.opener?.closest("tr")?.querySelector(".actions button:not(.away, [hidden])");
      const isOffered = (node) => node && node !== document.body && node.isConnected && node.checkVisibility({ visibilityProperty: true });
      ([document.activeElement, this.opener, beside].find(isOffered) || byId("upstreams")).focus({ preventScroll: true });
    });
  }

  /**
   * The Enter key in a field. Where a change takes a server away Cancel is the default, unless the word that is asked for
   * has been typed.
   */
  onKey(event) {
    if (event.key !== "Enter" || event.isComposing || !event.target.matches("input") || !this.question) return;
    if (!this.question.loses || event.target === this.parts.word) return;
    event.preventDefault();
    if (this.isSending) return;
    this.dialog.close();
    this.onCancel("Cancelled: nothing was changed. To change it, press “" + this.parts.go.textContent + "”.");
  }

  /** Asks; `peer` is null for a server that is to be added. */
  open(verb, upstream, peer) {
    if (this.dialog.open) return;
    this.verb = verb;
    this.question = QUESTIONS[verb];
    this.opener = document.activeElement;
    this.isSending = false;
    this.upstreamName = upstream.name;
    this.peer = peer;
    // What the guard of the upstream says, once it has refused.
    this.guard = "";
    setText(this.parts.title, this.question.title(peer, upstream));
    setText(this.parts.go, this.question.go);
    this.parts.go.className = this.question.loses ? "go loses" : "go";
    this.parts.word.value = "";
    this.fail("");
    this.makeFields();
    this.dialog.showModal();
    this.update([upstream]);
    const first = this.parts.fields.querySelector("input");
    if (first) {
      first.focus();
      first.select();
    } else this.parts.cancel.focus();
  }

  makeFields() {
    this.inputs = {};
    this.parts.fields.replaceChildren();
    for (const name of this.question.fields) {
      const field = FIELDS[name];
      const label = this.parts.fields.appendChild(element("label", field.type || "text"));
      const input = element("input");
      input.type = field.type || "text";
      input.name = name;
      input.autocomplete = "off";
      input.spellcheck = false;
      if (field.mode) input.inputMode = field.mode;
      if (field.hint) input.placeholder = field.hint;
      if (name === "weight" && this.peer) input.value = this.peer.weight;
      if (name === "note") input.maxLength = NOTE_MAX;
      label.append(...(field.type ? [input, element("span", "", field.label)] : [element("span", "", field.label), input]));
      this.inputs[name] = input;
    }
  }

  /** Says again what would remain, as the status has changed. */
  update(upstreams) {
    if (!this.question) return;
    const upstream = upstreams.find((found) => found.name === this.upstreamName);
    if (!upstream) return;
    this.upstream = upstream;
    if (this.peer === null) {
      setText(this.parts.remains, "");
      setText(this.parts["under-way"], "");
      setHidden(this.parts.danger, true);
      this.showGo();
      return;
    }
    const peer = upstream.peers.find((found) => found.key === this.peer.key);
    if (!peer) {
      this.fail("This server is no longer there.");
      return;
    }
    this.showRemains(upstream, peer);
    this.showGo();
  }

  showRemains(upstream, peer) {
    const { loses } = this.question;
    const left = remains(upstream, peer, this.verb === "remove");
    let words = "";
    if (loses) words = remainsInWords(left);
    else if (this.verb === "weight") words = this.share(upstream);
    else if (this.verb === "up" && peer.reason && peer.reason.note) words = "Its note says: " + peer.reason.note;
    setText(this.parts.remains, words);
    const isBusy = loses && peer.active > 0;
    setText(this.parts["under-way"], isBusy ? plural(peer.active, "request") + " under way may end." : "");
    const isUsable = peer.state === "up" || peer.state === "unavail";
    const isLast = left.primaries.all + left.backups.all === 0;
    this.needsWord = this.guard !== "" || (Boolean(loses) && left.isNothing && (isUsable || isLast));
    setHidden(this.parts.danger, !this.needsWord);
    const nothing = "No server of " + upstream.name + " would be left for new requests: clients get errors.";
    setText(this.parts["danger-text"], (this.guard || nothing) + " To do it all the same, type “" + this.word() + "”.");
  }

  /** The word that has to be typed where a change does harm. */
  word() {
    return this.guard ? "force" : this.verb;
  }

  /** The part of the requests that a weight stands for. */
  share(upstream) {
    const total = upstream.peers.filter((peer) => !peer.backup).reduce((sum, peer) => sum + peer.weight, 0);
    return "The weights of all servers that are not backups sum up to " + total + ".";
  }

  showGo() {
    const isReady = !this.needsWord || this.parts.danger.hidden || this.parts.word.value.trim().toLowerCase() === this.word();
    this.parts.go.disabled = this.isSending || !isReady;
  }

  fail(words) {
    setText(this.parts.error, words);
    setHidden(this.parts.error, !words);
  }

  async send() {
    if (this.parts.go.disabled || !this.question) return;
    const values = {};
    for (const [name, input] of Object.entries(this.inputs)) {
      values[name] = input.type === "checkbox" ? input.checked : input.value.trim();
      const wrong = FIELDS[name].check(values[name], this.verb);
      if (wrong) {
        this.fail(wrong);
        input.focus();
        return;
      }
    }
    const args = this.question.args(values);
    if (this.peer) args.id = this.peer.id;
    if (values.note) args.note = values.note;
    if (this.guard) args.force = "";
    this.fail("");
    this.busy(true);
    try {
      const reply = await change(this.upstream, args);
      const words = this.upstreamName + ": " + this.question.done(this.peer, values) + " (revision " + reply.revision + ").";
      this.busy(false);
      this.dialog.close();
      this.onDone(words);
    } catch (error) {
      this.busy(false);
      if (error.code === "Guarded" && !this.guard) this.askForForce(error.message);
      else {
        this.fail(error instanceof Refused ? error.message : "The page failed: " + error.message);
        this.parts.cancel.focus();
      }
      this.onDone("");
    }
  }

  askForForce(words) {
    this.guard = "Not done: " + words + ".";
    this.parts.word.value = "";
    this.update([this.upstream]);
    this.parts.word.focus();
  }

  busy(isSending) {
    this.isSending = isSending;
    setText(this.parts.go, isSending ? "Sending …" : this.question ? this.question.go : "");
    this.showGo();
  }
}
