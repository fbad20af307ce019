/** Asking for more time, in the panel and in the warning. */

import { button, element, say } from "./elements.js";
import { span, when } from "./words.js";

let count = 0;

/**
 * Buttons and a field that extend the reservation, with what came of it below.
 * @param {import("./link.js").Link} link
 * @param {() => void} [granted] is called after an extension
 */
export function moreTime(link, granted) {
  const id = `gpudev-hours-${(count += 1)}`;
  const said = element("p", { class: "gpudev-said", role: "status" });
  const instead = element("div", { class: "gpudev-row" });
  const field = element("input", {
    id,
    class: "gpudev-input",
    placeholder: "e.g. 1:30",
    title: "A length of time, such as 3, 0.5, 90m or 1:30",
    autocomplete: "off",
    required: "",
  });
  const send = element("button", { class: "gpudev-button" }, "Extend");
  const form = element("form", { class: "gpudev-row" }, element("label", { for: id }, "Hours"), field, send);
  const quick = ["1", "2"].map((hours) => button(`+${hours} h`, () => ask(hours)));
  const whole = element(
    "div",
    { class: "gpudev-more" },
    element("div", { class: "gpudev-row", role: "group", "aria-label": "More time" }, ...quick, form),
    said,
    instead,
  );
  said.hidden = true;
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    ask(field.value);
  });

  /** @param {boolean} on */
  function busy(on) {
    for (const each of whole.querySelectorAll("button")) each.disabled = on;
  }

  /** @param {string} hours */
  async function ask(hours) {
    busy(true);
    instead.replaceChildren();
    said.classList.remove("gpudev-bad");
    say(said, "Extending …");
    const refusal = await link.extend(hours);
    busy(false);
    if (!refusal) {
      field.value = "";
      const ends = link.reservation?.ends_at;
      say(said, ends ? `Extended. Your reservation ends at ${when(ends)}.` : "Extended.");
      granted?.();
      return;
    }
    said.classList.add("gpudev-bad");
    say(said, refusal.message);
    const longest = refusal.longest_hours ?? 0;
    if (longest > 0) {
      const offer = button(
        `Extend by ${span(longest * 3600 + 0.5)}`,
        () => ask(`${longest}`),
        "gpudev-first",
      );
      instead.append(offer);
      offer.focus();
    }
  }

  return { whole, ask, focus: () => field.focus() };
}
