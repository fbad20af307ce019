/** Scripts of the Hub's tokens page: make and revoke tokens with the Hub's API. */

import { refresh } from "./refresh.js";

const form = /** @type {HTMLFormElement} */ (document.getElementById("make-token"));
const problem = /** @type {HTMLElement} */ (document.getElementById("token-problem"));
const made = /** @type {HTMLElement} */ (document.getElementById("token-made"));
const permissions = /** @type {HTMLSelectElement} */ (document.getElementById("token-permissions"));
const scopesField = /** @type {HTMLElement} */ (document.getElementById("token-scopes-field"));
const api = form.dataset.api ?? "";
const xsrf = document.body.dataset.xsrf ?? "";

/** @param {string} id */
function value(id) {
  return /** @type {HTMLInputElement} */ (document.getElementById(id)).value.trim();
}

/**
 * Call the Hub. Throws an `Error` with the Hub's message for a refusal.
 * @param {string} method
 * @param {string} url
 * @param {unknown} [body]
 */
async function call(method, url, body) {
  const answer = await fetch(url, {
    method,
    headers: { "Content-Type": "application/json", "X-XSRFToken": xsrf },
    ...(body === undefined ? {} : { body: JSON.stringify(body) }),
    signal: AbortSignal.timeout(20_000),
  });
  const text = await answer.text();
  if (answer.ok) return text ? JSON.parse(text) : {};
  let words = "";
  try {
    words = JSON.parse(text).message;
  } catch {
    // Answers of the proxy have no message.
  }
  throw new Error(words || `The Hub answered with status ${answer.status}.`);
}

/**
 * Do the action of a form, and show an error if it fails.
 * @param {HTMLFormElement} asked
 * @param {() => Promise<void>} action
 */
async function perform(asked, action) {
  problem.hidden = true;
  try {
    await action();
  } catch (error) {
    problem.textContent = error instanceof Error ? error.message : String(error);
    problem.hidden = false;
    problem.scrollIntoView({ block: "nearest" });
  }
  // `reach.js` disabled the buttons when the form was sent.
  setTimeout(() => asked.querySelectorAll("button").forEach((button) => (button.disabled = false)));
}

permissions.addEventListener("change", () => (scopesField.hidden = permissions.value !== "custom"));
scopesField.hidden = permissions.value !== "custom";

form.addEventListener("submit", (event) => {
  event.preventDefault();
  perform(form, async () => {
    const chosen = permissions.value === "custom" ? value("token-scopes") : permissions.value;
    const scopes = chosen.split(/[\s,]+/).filter(Boolean);
    if (permissions.value === "custom" && !scopes.length) throw new Error("List at least one scope.");
    const { token } = await call("POST", api, {
      note: value("token-note") || "made on the tokens page",
      expires_in: Number(value("token-expires")) || null,
      ...(scopes.length ? { scopes } : {}),
    });
    const shown = /** @type {HTMLElement} */ (document.getElementById("token-value"));
    shown.textContent = token;
    made.querySelector("[data-copy]")?.setAttribute("data-copy", token);
    made.hidden = false;
    await refresh();
  });
});

document.addEventListener("submit", (event) => {
  const asked = event.target;
  if (!(asked instanceof HTMLFormElement) || !asked.dataset.revoke) return;
  event.preventDefault();
  const id = asked.dataset.revoke;
  perform(asked, async () => {
    await call("DELETE", `${api}/${encodeURIComponent(id)}`);
    await refresh();
    document.getElementById("tokens-title")?.focus();
  });
});
