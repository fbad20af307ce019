/** What covers JupyterLab once its server is gone for good: why, and what can be done now. */

import { button, element, link as linkTo, say, showDialog } from "./elements.js";
import { notify } from "./notify.js";
import { ending, sentence, span, title } from "./words.js";

/**
 * The form for the same again, filled in.
 * @param {string} root
 * @param {import("./words.js").Reservation} r
 */
function again(root, r) {
  const fields = new URLSearchParams({
    gpus: `${r.gpus}`,
    nodes: `${r.nodes}`,
    hours: Number.isInteger(r.hours * 4)
      ? `${r.hours}`
      : span(Math.round(r.hours * 3600)).replaceAll("\u00a0", " "),
    gpu_type: r.gpu_type,
    image: r.image,
  });
  if (r.name) fields.set("name", r.name);
  return `${root}new?${fields}`;
}

/**
 * Say that the reservation has ended; answers how to say it again when more is known.
 * @param {import("./link.js").Link} link
 * @param {HTMLButtonElement} item of the status bar: shows this again
 */
export function showEnd(link, item) {
  const { root, id } = link.about;
  const name = element("p", { class: "gpudev-facts" });
  const news = element("p", { dir: "auto" });
  const same = linkTo("Reserve the same again", "", "gpudev-first");
  const { dialog, heading } = showDialog(
    "",
    [
      name,
      news,
      element("p", {}, "Kernels, terminals and SSH sessions have ended. Files in your home are kept."),
      element("p", {}, "Unsaved changes are only in this tab. Stay here and copy them before you close it."),
      element(
        "div",
        { class: "gpudev-row" },
        same,
        linkTo("Open its page", `${root}reservations/${id}`),
        button("Stay here", () => dialog.close()),
      ),
    ],
    { lasting: true, kind: "gpudev-over", kept: true },
  );
  item.popoverTargetElement = null;
  item.addEventListener("click", () => {
    if (!dialog.open) dialog.showModal();
  });
  let told = false;
  return () => {
    const r = link.reservation;
    if (!r) return;
    const end = ending(r);
    say(heading, end.heading);
    say(name, title(r));
    // The words of an operator stay as they are.
    say(news, r.outcome === "ended_by_operator" ? end.news : sentence(end.news));
    same.href = again(root, r);
    if (r.outcome && !told) {
      told = true;
      notify(`${id}-end`, end.heading, title(r));
    }
  };
}

/**
 * Say that the server was stopped and the GPUs are kept for a while; answers how to take that back.
 * @param {import("./link.js").Link} link
 */
export function showStopped(link) {
  const page = `${link.about.root}reservations/${link.about.id}`;
  const { dialog } = showDialog(
    "Your server is stopped",
    [
      element(
        "p",
        {},
        "The GPUs are kept for a short time. On its page, start the server again or release the reservation.",
      ),
      element(
        "div",
        { class: "gpudev-row" },
        linkTo("Open its page", page, "gpudev-first"),
        button("Stay here", () => dialog.close()),
      ),
    ],
    { lasting: true, kind: "gpudev-over" },
  );
  return () => dialog.close();
}
