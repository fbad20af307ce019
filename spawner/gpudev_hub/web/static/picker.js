/** Scripts of the spawn page: presets and slider for the hours, and current data on free GPUs and limits. */

import { readHours } from "./hours.js";
import { told } from "./sentences.js";
import { span, when } from "./times.js";

/**
 * @typedef {{ gpus: number, nodes: number, free_now: number, starts_now: boolean, earliest_start: string | null,
 *   longest_now: number | null, reason_data: import("./sentences.js").Sentence | null,
 *   refused: { message: string, hint: string } | null }} Size
 * @typedef {{ gpu_type: string, sizes: Size[] }} Pool
 */

/** Seconds between updates. */
const EVERY = 10;
const AFTER_FAILURE = 2;
/** Milliseconds that the service has to answer. */
const PATIENCE = 5000;
/** Milliseconds after the last key until the plan is requested. */
const TYPING = 250;
/** Codes of refusals because of the hours. */
const ABOUT_HOURS = ["invalid_hours", "quota_exceeded"];

const root = document.body.dataset.root ?? "/";
const form = /** @type {HTMLFormElement} */ (document.getElementById("spawn_form"));
const hours = /** @type {HTMLInputElement} */ (document.getElementById("hours"));
const slider = /** @type {HTMLInputElement} */ (document.getElementById("hours-slider"));
const presets = /** @type {HTMLElement} */ (document.getElementById("presets"));
const summary = /** @type {HTMLElement} */ (document.getElementById("summary"));
const problem = /** @type {HTMLElement} */ (document.getElementById("hours-problem"));
const limitsPart = /** @type {HTMLElement} */ (document.getElementById("limits-part"));
const limitList = /** @type {HTMLElement} */ (document.getElementById("limits"));
const cards = /** @type {HTMLElement[]} */ ([...form.querySelectorAll(".g-free")]);

/** State of the plan for the hours in the field. @type {"plan" | "asking" | "unknown" | "refused"} */
let known = problem.textContent ? "refused" : "plan";
/** The text of the hours for which the cards show the plan. */
let about = hours.value;
/** @type {number | undefined} */
let timer;
let asking = new AbortController();

function number() {
  return readHours(hours.value);
}

function show() {
  const value = number();
  if (!Number.isNaN(value)) slider.value = String(value);
  for (const chip of presets.querySelectorAll("button")) {
    chip.setAttribute("aria-pressed", String(Number(chip.value) === value));
  }
  summarise();
}

/** Show what would be reserved, and when it would start. */
function summarise() {
  const card = form.querySelector(".g-size:has(input:checked)");
  const value = number();
  if (!card || !(value > 0) || known === "refused") {
    summary.textContent = "";
    return;
  }
  const title = card.querySelector("strong")?.textContent ?? "";
  const free = card.querySelector(".g-free");
  const tone = free?.getAttribute("data-tone");
  const reason = sentence(free?.getAttribute("data-why") ?? "");
  const why = reason && ` ${reason}`;
  const round = Number.isInteger(value * 2);
  const length = `${title} for ${round ? `${value} hour${value === 1 ? "" : "s"}` : span(value * 3600)}`;
  if (known === "asking") summary.textContent = `${length}: checking what is free …`;
  else if (known === "unknown")
    summary.textContent = `${length}. The reservation service does not answer, so availability is unknown.`;
  else if (tone === "good") summary.textContent = `${length}: starts now.`;
  else if (tone === "wait") {
    const start = free?.getAttribute("data-start");
    const at = start ? when(new Date(start)) : "later";
    const seconds = Number(free?.getAttribute("data-seconds"));
    const sooner = seconds ? ` For up to ${span(seconds)} it would start now.` : "";
    summary.textContent = `${length}: starts about ${at}. If you reserve now, this start is guaranteed.${why}${sooner}`;
  } else if (tone === "bad") summary.textContent = `${length}: waits, with no planned start yet.${why}`;
  else if (tone === "refused") summary.textContent = `${length} would be refused.${why}`;
  else summary.textContent = `${length}.`;
}

/**
 * Return text with a full stop and a capital letter, unless it begins with a name such as node-1.
 * @param {string} text
 */
function sentence(text) {
  const named = !/^\p{L}+[,.:;]?( |$)/u.test(text);
  return (
    text && `${named ? text : `${text[0]?.toUpperCase()}${text.slice(1)}`}${/[.!?]$/.test(text) ? "" : "."}`
  );
}

/**
 * Return when a size would start, with the number that is free now although the user would wait.
 * @param {string} start
 * @param {number} free
 */
function later(start, free) {
  return `${free ? `${free} free now; yours starts ` : ""}about ${when(new Date(start))}`;
}

/**
 * @param {Element} free
 * @param {Size} size
 */
function tell(free, size) {
  const why = told(size.reason_data ?? "", (iso) => when(new Date(iso)));
  const seconds = Math.round(3600 * (size.longest_now ?? 0));
  const sooner = seconds ? `, or now for up to ${span(seconds)}` : "";
  free.setAttribute("data-why", size.refused ? `${why} ${size.refused.hint}`.trim() : why);
  if (size.starts_now) {
    free.setAttribute("data-tone", "good");
    free.textContent = `${size.free_now} free now`;
  } else if (size.earliest_start) {
    free.setAttribute("data-tone", "wait");
    free.setAttribute("data-start", size.earliest_start);
    free.setAttribute("data-seconds", String(seconds));
    free.textContent = later(size.earliest_start, size.free_now) + sooner;
  } else {
    free.setAttribute("data-tone", size.refused ? "refused" : "bad");
    free.textContent = sooner ? why.replace(/\.$/, "") + sooner : why;
  }
}

/**
 * Show on all cards that the plan is not known yet, or that there is none.
 * @param {"asking" | "unknown" | "refused"} why
 * @param {string} words
 */
function clear(why, words) {
  known = why;
  for (const free of cards) {
    for (const name of ["data-tone", "data-start", "data-seconds", "data-why"]) free.removeAttribute(name);
    free.textContent = words;
  }
  summarise();
}

/**
 * Show why the hours are not possible, and stop the form; empty text if they are possible.
 * @param {string} words
 */
function complain(words) {
  const text = sentence(words);
  if (problem.textContent !== text) problem.textContent = text;
  hours.setCustomValidity(text);
}

/** Handle a change of the hours, for which the cards do not show the plan yet. */
function change() {
  show();
  if (hours.value === about && known !== "asking") return;
  complain("");
  clear("asking", "…");
  asking.abort();
  asking = new AbortController();
  clearTimeout(timer);
  timer = setTimeout(update, TYPING);
}

async function update() {
  clearTimeout(timer);
  const text = hours.value;
  asking.abort();
  const mine = (asking = new AbortController());
  const late = setTimeout(() => mine.abort(), PATIENCE);
  try {
    if (text && !document.hidden) {
      const answer = await fetch(`${root}picker?hours=${encodeURIComponent(text)}`, {
        cache: "no-store",
        signal: mine.signal,
      });
      const found = await answer.json();
      if (mine === asking) plan(text, answer.ok, found);
    } else if (!text) clear("refused", "–");
  } catch {
    if (mine === asking) clear("unknown", "unknown now");
  }
  clearTimeout(late);
  // Otherwise a later update is running, or will start after the last key.
  if (mine === asking) timer = setTimeout(update, (known === "unknown" ? AFTER_FAILURE : EVERY) * 1000);
}

/**
 * Show the answer of the service.
 * @param {string} text the requested hours
 * @param {boolean} ok
 * @param {{ pools?: Pool[], limits?: string[], error?: { code: string, message: string } }} answer
 */
function plan(text, ok, { pools, limits, error }) {
  about = text;
  if (!ok || !pools) {
    if (!error || !ABOUT_HOURS.includes(error.code)) throw new Error("the service did not say what is free");
    complain(error.message);
    clear("refused", "–");
    return;
  }
  complain("");
  known = "plan";
  limited(limits ?? []);
  for (const pool of pools) {
    for (const size of pool.sizes) {
      const which = `${pool.gpu_type}-${size.nodes}x${size.gpus}`;
      const free = form.querySelector(`[data-size="${CSS.escape(which)}"]`);
      if (free) tell(free, size);
    }
  }
  summarise();
}

/**
 * Show the limits if they have changed; other updates would disturb screen readers.
 * @param {string[]} lines
 */
function limited(lines) {
  const shown = [...limitList.children].map((item) => item.textContent);
  limitsPart.hidden = !lines.length;
  if (lines.join("\n") === shown.join("\n")) return;
  limitList.replaceChildren(
    ...lines.map((line) => {
      const item = document.createElement("li");
      item.textContent = line;
      return item;
    }),
  );
}

for (const free of form.querySelectorAll(".g-free[data-start]")) {
  free.textContent = later(free.getAttribute("data-start") ?? "", Number(free.getAttribute("data-free")));
}
presets.hidden = false;
slider.hidden = false;
presets.addEventListener("click", (event) => {
  if (!(event.target instanceof HTMLButtonElement)) return;
  hours.value = event.target.value;
  change();
});
slider.addEventListener("input", () => {
  hours.value = slider.value;
  change();
});
hours.addEventListener("input", change);
form.addEventListener("change", summarise);
document.addEventListener("visibilitychange", () => {
  if (!document.hidden) update();
});
show();
update();
