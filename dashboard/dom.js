// What all parts of the page use: elements, things remembered, times in words.
// Data gets into the page by textContent and nothing else.
"use strict";

const byId = (id) => document.getElementById(id);

/**
 * A text of others as it may be shown: what would turn the direction of the words around it, or break the line, is written
 * as an escape.
 */
function shown(text) {
  return String(text).replace(/[\u0000-\u001f\u007f-\u009f\u061c\u200b\u200e\u200f\u2028-\u202e\u2060-\u2069\ufeff]/g, (sign) => "\\u" + sign.charCodeAt(0).toString(16).padStart(4, "0"));
}

/** An element with a class and a text, both optional. */
function element(tag, name, text) {
  const made = document.createElement(tag);
  if (name) made.className = name;
  if (text !== undefined) made.textContent = shown(text);
  return made;
}

/** A button that calls `act`. */
function button(name, text, act) {
  const made = element("button", name, text);
  made.type = "button";
  made.addEventListener("click", act);
  return made;
}

// An assignment of what is there already would make the browser lay out the page anew, and lose the selection.

function setText(node, text) {
  const wanted = shown(text);
  if (node.textContent !== wanted) node.textContent = wanted;
}

function setHidden(node, hidden) {
  if (node.hidden !== hidden) node.hidden = hidden;
}

function setDisabled(node, disabled) {
  if (node.disabled !== disabled) node.disabled = disabled;
}

/** Sets an attribute; null takes it away. */
function setAttribute(node, name, value) {
  if (value === null) {
    if (node.hasAttribute(name)) node.removeAttribute(name);
  } else if (node.getAttribute(name) !== shown(value)) {
    node.setAttribute(name, shown(value));
  }
}

/** Makes `wanted` the children of `parent`, in this order, and moves only those that are elsewhere. */
function setChildren(parent, wanted) {
  const focused = document.activeElement;
  const keep = new Set(wanted);
  for (const child of [...parent.children]) {
    if (!keep.has(child)) child.remove();
  }
  let next = parent.firstElementChild;
  for (const child of wanted) {
    if (child === next) next = next.nextElementSibling;
    else parent.insertBefore(child, next);
  }
  // A browser takes the focus away from what is moved.
  if (focused && focused !== document.activeElement && focused.isConnected) focused.focus({ preventScroll: true });
}

/** Things remembered in a storage of the browser, which may be switched off. */
function memory(storage) {
  return {
    get(key) {
      try {
        return JSON.parse(window[storage].getItem("upstream-status:" + key));
      } catch {
        return null;
      }
    },
    set(key, value) {
      try {
        window[storage].setItem("upstream-status:" + key, JSON.stringify(value));
      } catch {
        // Then it is not remembered.
      }
    },
  };
}

const ofThisTab = memory("sessionStorage");
const ofThisBrowser = memory("localStorage");

/** A length of time in its largest unit. */
function duration(seconds) {
  const whole = Math.max(0, Math.round(seconds));
  if (whole < 60) return whole + " s";
  if (whole < 3600) return Math.floor(whole / 60) + " min";
  if (whole < 2 * 86400) return Math.floor(whole / 3600) + " h";
  return Math.floor(whole / 86400) + " days";
}

/** How long ago a moment in ISO-8601 was, for a clock in milliseconds. */
function ago(moment, now) {
  return duration((now - Date.parse(moment)) / 1000) + " ago";
}

/** A moment in the time of whoever looks, for a title. */
function localTime(moment) {
  return new Date(moment).toLocaleString();
}

/** "1 server", "2 servers". */
function plural(count, word) {
  return count + " " + word + (count === 1 ? "" : "s");
}
