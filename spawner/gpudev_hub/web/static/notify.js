/** The button on a reservation's page that turns notifications on and off, and the notifications of the page. */

import { notify as notifyWith, notifying, obstacle, onWanted, show, want } from "./notifications.js";

const ICON = `${document.body.dataset.root ?? "/"}static/icon.svg`;

/**
 * Notify once per tag in this browser, with the icon of the pages.
 * @param {string} tag
 * @param {string} title
 * @param {string} body
 */
export function notify(tag, title, body) {
  return notifyWith(tag, title, body, ICON);
}

/**
 * Show a button in `place` that turns notifications on and off, or why that is not possible.
 * @param {HTMLElement} place
 */
export function offer(place) {
  const words = document.createElement("span");
  words.className = "g-soft g-small";
  words.setAttribute("role", "status");
  const button = document.createElement("button");
  button.type = "button";
  button.className = "g-button";
  button.addEventListener("click", async () => {
    if (notifying()) {
      want(false);
      render();
      return;
    }
    const permission = await Notification.requestPermission();
    if (permission !== "granted") {
      render(obstacle() || "Your browser did not allow notifications, so they stay off.");
    } else if (!want(true)) {
      render("Your browser does not store settings for this site, so notifications stay off.");
    } else if (!show("gpudev-on", "Notifications are on", "You get one when something happens here.", ICON)) {
      want(false);
      button.hidden = true;
      words.textContent = "Your browser does not show notifications.";
    } else {
      render();
    }
  });
  place.replaceChildren(button, words);

  /** @param {string} [news] */
  function render(news) {
    const problem = obstacle();
    button.hidden = problem !== "";
    const state = notifying();
    button.textContent = state ? "Turn notifications off" : "Notify me";
    words.textContent =
      news ??
      (problem ||
        (state
          ? "This browser notifies you when your turn comes, shortly before the end, and at the end."
          : "When your turn comes, shortly before the end, and at the end. Keep this page open in a tab."));
    place.hidden = false;
  }

  render();
  // Another tab or the settings of the browser may change the state.
  onWanted(() => render());
  navigator.permissions
    ?.query({ name: "notifications" })
    .then((permission) => permission.addEventListener("change", () => render()))
    .catch(() => {}); // Without this query, the next load shows the state.
}
