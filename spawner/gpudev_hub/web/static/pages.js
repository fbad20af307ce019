/** What the pages of the reservation service do beyond links and forms. */

import { follow } from "./reservation.js";
import { connected, pause, refresh, sleep, visible } from "./refresh.js";
import { countDown, localise } from "./times.js";

localise(document);
setInterval(() => countDown(document), 1000);

/** Copy buttons: shown only where they can work. */
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
document.addEventListener("refreshed", offerCopies);
const { every, reservation } = document.body.dataset;
if (every) keepFresh(Number(every));
if (reservation) follow(reservation);
