/** The spawn page: presets and slider for the hours, and what is free, kept fresh. */

import { readHours } from "./hours.js";
import { span, when } from "./times.js";

/**
 * @typedef {{ gpus: number, nodes: number, free_now: number, earliest_start: string | null,
 *   longest_now: number | null }} Size
 * @typedef {{ gpu_type: string, sizes: Size[] }} Pool
 */

const EVERY = 10;
const root = document.body.dataset.root ?? "/";
const form = /** @type {HTMLFormElement} */ (document.getElementById("spawn_form"));
const hours = /** @type {HTMLInputElement} */ (document.getElementById("hours"));
const slider = /** @type {HTMLInputElement} */ (document.getElementById("hours-slider"));
const presets = /** @type {HTMLElement} */ (document.getElementById("presets"));
const summary = /** @type {HTMLElement} */ (document.getElementById("summary"));

/** @type {number | undefined} */
let timer;

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

/** What would be reserved, and when it would start. */
function summarise() {
  const card = form.querySelector(".g-size:has(input:checked)");
  const value = number();
  if (!card || !(value > 0)) {
    summary.textContent = "";
    return;
  }
  const title = card.querySelector("strong")?.textContent ?? "";
  const free = card.querySelector(".g-free");
  const tone = free?.getAttribute("data-tone");
  const round = Number.isInteger(value * 2);
  const length = `${title} for ${round ? `${value} hour${value === 1 ? "" : "s"}` : span(value * 3600)}`;
  if (tone === "good") summary.textContent = `${length}: starts at once.`;
  else if (tone === "wait") {
    const start = free?.getAttribute("data-start");
    const at = start ? when(new Date(start)) : "later";
    const seconds = Number(free?.getAttribute("data-seconds"));
    const sooner = seconds ? ` For up to ${span(seconds)} it would start at once.` : "";
    summary.textContent = `${length}: starts about ${at}, guaranteed by then once you reserve.${sooner}`;
  } else if (tone === "bad") summary.textContent = `${length}: waits until a node that can hold it is up.`;
  else summary.textContent = `${length}.`;
}

/**
 * @param {Element} free
 * @param {Size} size
 */
function tell(free, size) {
  if (size.free_now > 0) {
    free.setAttribute("data-tone", "good");
    free.textContent = `${size.free_now} free now`;
  } else if (size.earliest_start) {
    free.setAttribute("data-tone", "wait");
    free.setAttribute("data-start", size.earliest_start);
    const seconds = Math.round(3600 * (size.longest_now ?? 0));
    free.setAttribute("data-seconds", String(seconds));
    const sooner = seconds ? `, or now for up to ${span(seconds)}` : "";
    free.textContent = `about ${when(new Date(size.earliest_start))}${sooner}`;
  } else {
    free.setAttribute("data-tone", "bad");
    free.textContent = "no node is up";
  }
}

async function update() {
  clearTimeout(timer);
  const value = number();
  if (!document.hidden && value > 0) {
    try {
      const answer = await fetch(`${root}picker?hours=${value}`, { cache: "no-store" });
      if (answer.ok) {
        /** @type {{ pools: Pool[] }} */
        const found = await answer.json();
        for (const pool of found.pools) {
          for (const size of pool.sizes) {
            const which = `${pool.gpu_type}-${size.nodes}x${size.gpus}`;
            const free = form.querySelector(`[data-size="${CSS.escape(which)}"]`);
            if (free) tell(free, size);
          }
        }
        summarise();
      }
    } catch {
      // What the page came with stays; the next round tries again.
    }
  }
  clearTimeout(timer);
  timer = setTimeout(update, EVERY * 1000);
}

for (const free of form.querySelectorAll(".g-free[data-start]")) {
  free.textContent = `about ${when(new Date(free.getAttribute("data-start") ?? ""))}`;
}
presets.hidden = false;
slider.hidden = false;
presets.addEventListener("click", (event) => {
  if (!(event.target instanceof HTMLButtonElement)) return;
  hours.value = event.target.value;
  show();
  update();
});
slider.addEventListener("input", () => {
  hours.value = slider.value;
  show();
});
slider.addEventListener("change", update);
hours.addEventListener("input", show);
hours.addEventListener("change", update);
form.addEventListener("change", summarise);
form.addEventListener("submit", () => {
  setTimeout(() => {
    for (const button of form.querySelectorAll("button")) button.disabled = true;
  });
});
window.addEventListener("pageshow", () => {
  for (const button of form.querySelectorAll("button")) button.disabled = false;
});
document.addEventListener("visibilitychange", () => {
  if (!document.hidden) update();
});
show();
update();
