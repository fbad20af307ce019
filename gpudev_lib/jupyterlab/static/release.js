/** Releasing the reservation, after a question that says what ends. */

import { button, element, say, showDialog } from "./elements.js";
import { title } from "./words.js";

/** @param {import("./link.js").Link} link */
export function askRelease(link) {
  const r = link.reservation;
  if (!r || link.ended) return;
  const said = element("p", { class: "gpudev-said gpudev-bad", role: "alert" });
  said.hidden = true;
  const release = button(
    "Release it now",
    async () => {
      release.disabled = true;
      const refusal = await link.release();
      release.disabled = false;
      if (refusal) say(said, refusal.message);
      else dialog.close();
    },
    "gpudev-danger",
  );
  const { dialog } = showDialog(`Release ${title(r)}?`, [
    element("p", {}, "Everything that runs on the server ends now: kernels, terminals and SSH sessions."),
    element("p", {}, "Save your notebooks first. Files in your home are kept."),
    said,
    element(
      "div",
      { class: "gpudev-row gpudev-end" },
      button("Keep it", () => dialog.close()),
      release,
    ),
  ]);
}
