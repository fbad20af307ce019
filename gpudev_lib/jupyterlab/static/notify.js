/** Notifications in JupyterLab, turned on and off in its panel. */

import { notifying, obstacle, want } from "./notifications.js";

export { notify, notifying } from "./notifications.js";

/** Turn them on, asking the browser's user if needed, or off. Answers in words what came of it. */
export async function toggle() {
  if (notifying()) {
    want(false);
    return "Notifications are off.";
  }
  const problem = obstacle();
  if (problem) return problem;
  if ((await Notification.requestPermission()) !== "granted") {
    return obstacle() || "Your browser did not allow notifications, so they stay off.";
  }
  if (!want(true)) return "Your browser does not store settings for this site, so notifications stay off.";
  return "Notifications are on: one shortly before the end, and one at the end. Keep this tab open.";
}
