/**
 * Links and forms lead away only while the other side answers. Otherwise the page stays, says what does not
 * answer, and goes on by itself as soon as it does: the browser's own error page has no way back.
 */

/** Milliseconds for each part to answer; with this the page says within 2 s that one does not. */
const PATIENCE = 1200;
const EVERY = 1000;
/** Milliseconds that a click is kept: what was wanted long ago may no longer be. */
const KEPT = 5 * 60_000;

const paths = /** @type {HTMLElement | null} */ (document.querySelector("[data-hub]"))?.dataset ?? {};
const root = paths.root ?? "/";
const hub = paths.hub ?? "/hub/";

/**
 * What a click asks for.
 * @typedef {{ go: () => void, what: string, service: boolean, since: number }} Goal
 */

/** The latest click that waits for an answer. @type {Goal | null} */
let wanted = null;
/** The form that is being sent for good. @type {HTMLFormElement | null} */
let sending = null;
let trying = false;

const note = document.createElement("div");
note.className = "g-away";
note.setAttribute("role", "alert");
note.hidden = true;
const words = document.createElement("p");
const cancel = document.createElement("button");
cancel.type = "button";
cancel.className = "g-button";
cancel.textContent = "Cancel";
cancel.addEventListener("click", () => {
  wanted = null;
  note.hidden = true;
});
note.append(words, cancel);
document.body.append(note);

/**
 * Whether anything but the proxy's "nobody there" comes back.
 * @param {string} url
 */
async function answers(url) {
  try {
    const answer = await fetch(url, {
      cache: "no-store",
      redirect: "manual",
      signal: AbortSignal.timeout(PATIENCE),
    });
    return answer.status < 500;
  } catch {
    return false;
  }
}

/** Whether the Hub answers. */
export function hubAnswers() {
  return answers(`${hub}health`);
}

/**
 * Name the part that does not answer; an empty string if all do.
 * @param {boolean} service whether the reservation service is needed, too
 */
async function away(service) {
  const [first, second] = await Promise.all([
    hubAnswers(),
    service ? answers(`${root}health/live`) : Promise.resolve(true),
  ]);
  return first ? (second ? "" : "The reservation service") : "The Hub";
}

/**
 * Say something, with a button to stop waiting.
 * @param {string} text
 */
function say(text, button = "Cancel") {
  cancel.textContent = button;
  if (words.textContent !== text) words.textContent = text;
  note.hidden = false;
}

/**
 * Say something final.
 * @param {string} text
 */
function close(text) {
  say(text, "Close");
}

/**
 * Reach a goal now, or as soon as what it needs answers.
 * @param {Goal} goal
 */
async function want(goal) {
  wanted = goal;
  if (trying) return;
  trying = true;
  while (wanted) {
    /** @type {Goal} */
    const current = wanted;
    const missing = await away(current.service);
    if (current !== wanted) continue;
    if (Date.now() - current.since > KEPT) {
      wanted = null;
      close(`${missing || "The Hub"} did not answer for 5 minutes. Nothing was sent. Try again.`);
    } else if (missing) {
      say(`${missing} does not answer. ${current.what} as soon as it answers.`);
      await new Promise((resolve) => setTimeout(resolve, EVERY));
    } else {
      wanted = null;
      note.hidden = true;
      current.go();
    }
  }
  trying = false;
}

/**
 * Go to an address of the Hub, the reservation service or a server.
 * @param {string} url
 */
export function visit(url) {
  const there = new URL(url, location.href);
  want({
    go: () => location.assign(there),
    what: "This page opens the link",
    // A server's pages need the Hub alone: it says who asks.
    service: there.pathname.startsWith(root),
    since: Date.now(),
  });
}

document.addEventListener("click", (event) => {
  const link = event.target instanceof Element ? event.target.closest("a[href]") : null;
  if (!(link instanceof HTMLAnchorElement) || event.defaultPrevented || event.button !== 0) return;
  if (event.metaKey || event.ctrlKey || event.shiftKey || event.altKey) return;
  if (link.origin !== location.origin || link.target || link.getAttribute("href")?.startsWith("#")) return;
  event.preventDefault();
  visit(link.href);
});

/** @param {HTMLFormElement} form */
function buttons(form) {
  return /** @type {HTMLButtonElement[]} */ ([...form.querySelectorAll("button")]);
}

document.addEventListener(
  "submit",
  (event) => {
    const form = event.target;
    if (!(form instanceof HTMLFormElement)) return;
    if (form === sending) {
      sending = null;
      // One click, one request. After the form was read: a disabled button's value is not sent.
      setTimeout(() => buttons(form).forEach((button) => (button.disabled = true)));
      return;
    }
    const { submitter } = event;
    event.preventDefault();
    event.stopImmediatePropagation();
    want({
      go: () => {
        if (!form.isConnected || (submitter && !submitter.isConnected)) {
          close("The page has changed in the meantime. Nothing was sent. Check it, and try again.");
          return;
        }
        sending = form;
        form.requestSubmit(submitter);
        sending = null;
      },
      what: "Your request is sent",
      service: true,
      since: Date.now(),
    });
  },
  { capture: true },
);

// Back from the next page, out of the browser's memory.
window.addEventListener("pageshow", () => {
  for (const form of document.forms) for (const button of buttons(form)) button.disabled = false;
});
