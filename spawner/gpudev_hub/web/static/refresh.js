/**
 * Keep a page up to date: fetch it again and replace its parts with `data-live`. So the templates on the server
 * are the only source of a page's content.
 */

import { hubAnswers } from "./reach.js";
import { localise } from "./times.js";

const xsrf = document.body.dataset.xsrf ?? "";
const connection = document.getElementById("connection");

/** The last HTML from the server for each part, with times in UTC. @type {Map<string, string>} */
const sent = new Map();
for (const part of document.querySelectorAll("[data-live]")) sent.set(part.id, part.outerHTML);

/**
 * Fetch from the server. If a login is needed and the Hub answers, load the page again.
 * @param {string} url
 * @param {AbortSignal} [signal]
 */
export async function ask(url, signal) {
  const answer = await fetch(url, {
    headers: { "X-XSRFToken": xsrf },
    redirect: "manual",
    cache: "no-store",
    signal: signal ?? AbortSignal.timeout(60_000),
  });
  if (answer.type === "opaqueredirect" || answer.status === 401) {
    if (await hubAnswers()) location.reload();
    throw new Error("logged out");
  }
  if (answer.status >= 500 || answer.status === 429) throw new Error(`the service answered ${answer.status}`);
  return answer;
}

/**
 * Show or hide the note that the connection is lost.
 * @param {boolean} works
 */
export function connected(works) {
  if (connection) connection.hidden = works;
}

/** Fetch this page again and replace the parts that have changed. */
export async function refresh() {
  // After a refused form, the address is the form's address.
  const answer = await ask(document.body.dataset.page ?? location.pathname);
  const page = new DOMParser().parseFromString(await answer.text(), "text/html");
  for (const part of document.querySelectorAll("[data-live]")) {
    const fresh = page.getElementById(part.id);
    if (!fresh || fresh.outerHTML === sent.get(part.id)) continue;
    if (part.contains(document.activeElement) && isTyping(document.activeElement)) continue;
    sent.set(part.id, fresh.outerHTML);
    renew(part, fresh);
  }
  const title = page.querySelector("title");
  if (title) document.title = title.textContent ?? "";
  const version = page.body.dataset.version;
  if (version) document.body.dataset.version = version;
  document.dispatchEvent(new Event("refreshed"));
}

/**
 * Replace the content of a part, and keep focus, open details and scroll position.
 * @param {Element} part
 * @param {Element} fresh
 */
function renew(part, fresh) {
  const focused = part.contains(document.activeElement) ? document.activeElement : null;
  const place = focused ? [...part.querySelectorAll("a, button, input, summary")].indexOf(focused) : -1;
  const open = [...part.querySelectorAll("details[open]")].map((details) => details.id);
  const scrolled = part.scrollLeft;
  for (const { name } of [...part.attributes]) if (name.startsWith("data-")) part.removeAttribute(name);
  for (const { name, value } of fresh.attributes) part.setAttribute(name, value);
  part.replaceChildren(...fresh.childNodes);
  for (const id of open) document.getElementById(id)?.setAttribute("open", "");
  localise(part);
  part.scrollLeft = scrolled;
  if (place >= 0) {
    const again = [...part.querySelectorAll("a, button, input, summary")][place];
    if (again instanceof HTMLElement) again.focus({ preventScroll: true });
  }
}

/** @param {Element | null} element */
function isTyping(element) {
  return element instanceof HTMLInputElement && element.type !== "hidden" && element.value !== "";
}

/**
 * Wait longer after each failure, with some randomness so that browsers do not return at the same time.
 * @param {number} failures
 */
export function pause(failures) {
  const seconds = Math.min(1.5 ** failures, 20) * (0.7 + Math.random() * 0.6);
  return sleep(seconds);
}

/** @param {number} seconds */
export function sleep(seconds) {
  return new Promise((resolve) => setTimeout(resolve, seconds * 1000));
}

/** Wait until the page is visible. */
export function visible() {
  if (!document.hidden) return Promise.resolve();
  return new Promise((resolve) => {
    document.addEventListener("visibilitychange", () => resolve(undefined), { once: true });
  });
}
