/** Scripts of the service's pages: copy buttons, labels in the timeline, updates. */

import { follow } from "./reservation.js";
import { connected, pause, refresh, sleep, visible } from "./refresh.js";
import { countDown, label, localise } from "./times.js";

localise(document);
setInterval(() => countDown(document), 1000);

/**
 * Put the address of this browser's connection into the commands of the help page; it may be a tunnel.
 * @param {string} address the configured address
 */
function nameThisAddress(address) {
  const configured = new URL(address).origin;
  for (const element of document.querySelectorAll("code, [data-copy]")) {
    const copied = element.getAttribute("data-copy");
    if (copied) element.setAttribute("data-copy", copied.replaceAll(configured, location.origin));
    else if (element.textContent?.includes(configured))
      element.textContent = element.textContent.replaceAll(configured, location.origin);
  }
}

/** Show copy buttons if the browser can copy. */
function offerCopies() {
  for (const button of document.querySelectorAll("button[data-copy]")) {
    if (button instanceof HTMLElement) button.hidden = !navigator.clipboard;
  }
}

document.addEventListener("click", async (event) => {
  const button = event.target instanceof Element ? event.target.closest("button[data-copy]") : null;
  if (!button) return;
  const label = button.firstElementChild;
  await navigator.clipboard.writeText(button.getAttribute("data-copy") ?? "");
  if (!label) return;
  label.textContent = "Copied";
  setTimeout(() => (label.textContent = "Copy"), 1600);
});

/** Show the label of the bar that has the pointer or the keyboard focus. */
for (const kind of ["pointerover", "focusin"]) {
  document.addEventListener(kind, (event) => {
    const bar = event.target instanceof Element ? event.target.closest("svg a[data-parts]") : null;
    const drawing = bar?.closest("[data-live]");
    const line = drawing && document.querySelector(`[data-told="${drawing.id}"]`);
    if (!bar || !line) return;
    /** @type {{ text: string, at?: string, name?: string }[]} */
    const parts = JSON.parse(bar.getAttribute("data-parts") ?? "[]");
    line.replaceChildren(
      ...parts.map((part) => {
        const piece = document.createElement(part.name ? "bdi" : "span");
        piece.textContent = label([part]);
        return piece;
      }),
    );
  });
}

/** @param {number} seconds */
async function keepFresh(seconds) {
  let failures = 0;
  for (;;) {
    await (failures ? pause(failures) : sleep(seconds));
    await visible();
    try {
      await refresh();
      failures = 0;
    } catch {
      failures += 1;
    }
    connected(failures < 2);
  }
}

offerCopies();
for (const line of document.querySelectorAll("[data-told]")) line.removeAttribute("hidden");
document.addEventListener("refreshed", offerCopies);
const { address, every, reservation } = document.body.dataset;
if (address) nameThisAddress(address);
if (every) keepFresh(Number(every));
if (reservation) follow(reservation);
