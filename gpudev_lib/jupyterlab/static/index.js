/** The plugins of this extension: time left in the status bar, warnings, the end, commands. */

import { element, say } from "./elements.js";
import { showEnd, showStopped } from "./end.js";
import { Link } from "./link.js";
import { lastWarnings } from "./notifications.js";
import { Panel, trouble } from "./panel.js";
import { loadLab } from "./shared.js";
import { Warning } from "./warning.js";
import { span, title } from "./words.js";

const CATEGORY = "Reservation";

/**
 * The text of the status bar, and how urgent it is.
 * @param {Link} link
 */
function status(link) {
  const { reservation: r, left } = link;
  if (!r) return { text: "Reservation", level: "" };
  if (link.ended) return { text: `${title(r)} · ended`, level: "bad" };
  const time = left === null ? "" : left > 0 ? `${span(left)} left` : "ending";
  const doubt = !link.connected ? "server does not answer" : !link.answers ? "service does not answer" : "";
  const minutes = left === null ? Infinity : left / 60;
  const [last, first = last] = lastWarnings(link.warnMinutes);
  return {
    text: [title(r), time, doubt].filter(Boolean).join(" · "),
    level: minutes <= (last ?? 0) ? "bad" : minutes <= (first ?? 0) || doubt ? "near" : "",
  };
}

let told = "";

/**
 * Show what the server has to say about itself, once: that JupyterLab runs without its user's configuration.
 * @param {import("./shared.js").Lab} lab
 * @param {Link} link
 * @param {Panel} panel
 */
function tellNotice(lab, link, panel) {
  if (!link.notice || link.notice === told) return;
  told = link.notice;
  // JupyterLab shows the first 140 characters only.
  const actions = [{ label: "Show all", callback: () => panel.open() }];
  lab.apputils.Notification.warning(told, { autoClose: false, actions });
}

/**
 * Follow the reservation and show it.
 * @param {import("./shared.js").Lab} lab
 * @param {import("@jupyterlab/application").JupyterFrontEnd} app
 * @param {Link} link
 * @param {import("@jupyterlab/statusbar").IStatusBar | null} bar
 * @param {import("@jupyterlab/apputils").ICommandPalette | null} palette
 */
function activate(lab, app, link, bar, palette) {
  const style = document.createElement("link");
  style.rel = "stylesheet";
  style.href = new URL("gpudev.css", import.meta.url).href;
  document.head.append(style);

  const item = element("button", { type: "button", class: "gpudev-status", "aria-haspopup": "dialog" });
  const widget = new lab.widgets.Widget();
  widget.node.append(item);
  // First, and not hidden where the window is narrow.
  bar?.registerStatusItem("gpudev:status", { item: widget, align: "left", rank: -100, priority: 1 });

  const panel = new Panel(link, item);
  const warning = new Warning(link);
  /** Says that the reservation has ended. @type {(() => void) | null} */
  let end = null;
  /** Takes back that the server is stopped. @type {(() => void) | null} */
  let started = null;

  function update() {
    const { text, level } = status(link);
    say(item, text);
    item.dataset.level = level;
    item.title = link.ended ? "Why it ended" : trouble(link) || "Extend, release, SSH";
    panel.update();
    const stopped =
      !link.connected && link.reservation?.state === "ready" && link.reservation.server === "stopped";
    if (stopped) started ??= showStopped(link);
    else if (started) {
      started();
      started = null;
    }
    if (!link.ended) {
      warning.update();
      return;
    }
    warning.end();
    if (!end) {
      panel.close();
      end = showEnd(link, item);
    }
    end();
  }
  link.addEventListener("change", update);
  link.addEventListener("change", () => tellNotice(lab, link, panel));
  setInterval(update, 1000);
  update();

  /** @param {string} name @param {string} label @param {() => unknown} execute */
  function command(name, label, execute) {
    app.commands.addCommand(`gpudev:${name}`, { label, execute, isEnabled: () => !link.ended });
    palette?.addItem({ command: `gpudev:${name}`, category: CATEGORY });
  }
  command("show", "Show Time Left", () => panel.open());
  command("extend-1", "Extend by 1 Hour", () => panel.extend("1"));
  command("extend-2", "Extend by 2 Hours", () => panel.extend("2"));
  command("extend", "Extend by …", () => panel.other());
  command("copy-ssh", "Copy SSH Command", () => {
    panel.open();
    return panel.copy(0);
  });
  command("open-page", "Open Page of the Reservation", () =>
    window.open(`${link.about.root}reservations/${link.about.id}`, "_blank", "noopener"),
  );
  command("notifications", "Turn Notifications On or Off", () => {
    panel.open();
    return panel.notify();
  });
  command("release", "Release …", () => panel.release());
  link.start();
}

/**
 * Make the plugins; none where JupyterLab runs on no server of a reservation.
 * @param {import("./shared.js").Scope} scope
 */
export async function plugins(scope) {
  const lab = await loadLab(scope);
  const told = lab.coreutils.PageConfig.getOption("gpudev");
  if (!told) return [];
  const settings = lab.services.ServerConnection.makeSettings();
  const link = new Link(lab.services, settings, JSON.parse(told));
  return [
    {
      id: "gpudev:reservation",
      description: "Shows the time left, and extends or releases the reservation.",
      autoStart: true,
      optional: [lab.statusbar.IStatusBar, lab.apputils.ICommandPalette],
      activate: (/** @type {any} */ app, /** @type {any} */ bar, /** @type {any} */ palette) =>
        activate(lab, app, link, bar, palette),
    },
    {
      id: "gpudev:connection-lost",
      description: "Says in the status bar, not in a dialog, that the server does not answer.",
      autoStart: true,
      provides: lab.application.IConnectionLost,
      activate: () => () => link.look(),
    },
  ];
}
