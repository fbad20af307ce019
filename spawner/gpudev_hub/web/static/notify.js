/** The button of a reservation's page that turns notifications on and off, and the page's own notifications. */

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
 * Let the reader switch notifications on and off in `place`, or read there why that can't be.
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
          ? "This browser notifies you when your turn comes, 15 minutes before the end, and at the end."
          : "When your turn comes, 15 minutes before the end, and at the end. Keep this page open in a tab."));
    place.hidden = false;
  }

  render();
  // Another tab, or the browser's settings.
  onWanted(() => render());
  navigator.permissions
    ?.query({ name: "notifications" })
    .then((permission) => permission.addEventListener("change", () => render()))
    .catch(() => {}); // A browser without that: the next load shows it.
}
