/**
 * Follow links and send forms only while Hub and service answer. Otherwise the page stays, names the part that
 * does not answer, and continues as soon as it answers. An error page of the browser would not continue.
 */

/** Milliseconds that each part has to answer, so that the page shows a failure within 2 s. */
const PATIENCE = 1200;
const EVERY = 1000;
/** Milliseconds for which a click is kept. The user may not want it any more after that. */
const KEPT = 5 * 60_000;

const paths = /** @type {HTMLElement | null} */ (document.querySelector("[data-hub]"))?.dataset ?? {};
const root = paths.root ?? "/";
const hub = paths.hub ?? "/hub/";

/**
 * The action of a click.
 * @typedef {{ go: () => void, what: string, service: boolean, since: number }} Goal
 */

/** The latest click that waits until the parts it needs answer. @type {Goal | null} */
let wanted = null;
/** The form that is being sent now. @type {HTMLFormElement | null} */
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
 * Return whether an address answers with anything but a server error, as the proxy does for missing parts.
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

/** Return whether the Hub answers. */
export function hubAnswers() {
  return answers(`${hub}health`);
}

/**
 * Return the name of the part that does not answer; an empty string if all answer.
 * @param {boolean} service whether the reservation service is needed as well
 */
async function away(service) {
  const [first, second] = await Promise.all([
    hubAnswers(),
    service ? answers(`${root}health/live`) : Promise.resolve(true),
  ]);
  return first ? (second ? "" : "The reservation service") : "The Hub";
}

/**
 * Show a note with a button to stop waiting.
 * @param {string} text
 */
function say(text, button = "Cancel") {
  cancel.textContent = button;
  if (words.textContent !== text) words.textContent = text;
  note.hidden = false;
}

/**
 * Show a note with a button to close it.
 * @param {string} text
 */
function close(text) {
  say(text, "Close");
}

/**
 * Do the action of a click as soon as the parts it needs answer.
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
    // Pages of users' servers need only the Hub, which authenticates users.
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
      // Disable the buttons so that a form is sent once, but only after it was read: values of disabled buttons
      // are not sent.
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

// The browser may show this page from its cache when the user goes back.
window.addEventListener("pageshow", () => {
  for (const form of document.forms) for (const button of buttons(form)) button.disabled = false;
});
