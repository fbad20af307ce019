/**
 * Browser notifications. They are off until the user turns them on, and the choice is stored in this browser.
 * Pages and JupyterLab share this module, so that one choice counts for both and nothing is shown twice.
 */

/** Key in localStorage: "on" if the user turned notifications on. */
const WANTED = "gpudev-notify";
/** Key in localStorage: the tags of notifications shown in this browser, the latest last. */
const SHOWN = "gpudev-notified";
const REMEMBERED = 50;

/** @param {string} key */
function stored(key) {
  try {
    return localStorage.getItem(key);
  } catch {
    return null;
  }
}

/**
 * @param {string} key
 * @param {string | null} value
 */
function store(key, value) {
  try {
    if (value === null) localStorage.removeItem(key);
    else localStorage.setItem(key, value);
    return true;
  } catch {
    return false;
  }
}

/**
 * Return the last two warnings before the end, the shorter first. Those interrupt the user: the first of them by a
 * notification, and both by a dialog in JupyterLab.
 * @param {number[]} minutes before the end, of all warnings
 */
export function lastWarnings(minutes) {
  return [...minutes].sort((one, other) => one - other).slice(0, 2);
}

/** Return why this browser cannot notify; an empty string if it can, or if it was not asked yet. */
export function obstacle() {
  if (!window.isSecureContext)
    return "Your browser allows notifications only over HTTPS. To get them, open this hub at an https address.";
  if (!("Notification" in window) || !("locks" in navigator))
    return "Your browser does not support notifications.";
  if (Notification.permission === "denied")
    return "Your browser blocks notifications from this site. To get them, allow them in its settings for this site.";
  return "";
}

/** Return whether notifications are turned on and allowed. */
export function notifying() {
  return !obstacle() && Notification.permission === "granted" && stored(WANTED) === "on";
}

/**
 * Store whether the user wants notifications. Return whether that worked.
 * @param {boolean} on
 */
export function want(on) {
  return store(WANTED, on ? "on" : null);
}

/**
 * Call back when another tab changes the choice.
 * @param {() => void} changed
 */
export function onWanted(changed) {
  window.addEventListener("storage", (event) => {
    if (event.key === WANTED || event.key === null) changed();
  });
}

/**
 * Notify once per tag in this browser, if the user turned notifications on.
 * @param {string} tag
 * @param {string} title
 * @param {string} body
 * @param {string} [icon] address of the icon
 */
export async function notify(tag, title, body, icon) {
  if (notifying()) await once(tag, () => show(tag, title, body, icon));
}

/**
 * Show the notification with this tag, unless this browser has shown it already.
 * @param {string} tag
 * @param {() => boolean} show returns whether it was shown
 * @returns {Promise<void>}
 */
function once(tag, show) {
  return new Promise((done) => {
    // All tabs try this at about the same time, before they see what another tab stores. So the tab that shows
    // the notification keeps the lock until it is closed.
    navigator.locks.request(`${SHOWN} ${tag}`, { ifAvailable: true }, (lock) => {
      done();
      /** @type {string[]} */
      const shown = JSON.parse(stored(SHOWN) ?? "[]");
      if (!lock || shown.includes(tag) || !show()) return undefined;
      store(SHOWN, JSON.stringify([...shown, tag].slice(-REMEMBERED)));
      return new Promise(() => {});
    });
  });
}

/**
 * @param {string} tag
 * @param {string} title
 * @param {string} body
 * @param {string} [icon]
 * @returns {boolean} whether it was shown
 */
export function show(tag, title, body, icon) {
  try {
    const shown = new Notification(title, { body, tag, ...(icon && { icon }) });
    shown.addEventListener("click", () => {
      window.focus();
      shown.close();
    });
    return true;
  } catch {
    return false; // Mobile browsers have `Notification`, but pages cannot use it.
  }
}
