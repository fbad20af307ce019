/** What opens from the status bar: the reservation, and what can be done about it. */

import { button, element, link as linkTo, say } from "./elements.js";
import { moreTime } from "./more.js";
import { notifying, toggle } from "./notify.js";
import { askRelease } from "./release.js";
import { reason, sentence, size, span, title, when } from "./words.js";

/** Why the time left may be wrong or nothing can be done; empty if all is well. @param {import("./link.js").Link} link */
export function trouble(link) {
  if (!link.connected && link.stranger) {
    return "You are logged out. Reload this page to log in again; save a copy of unsaved work first.";
  }
  if (!link.connected) {
    return "Your server does not answer. JupyterLab reconnects by itself. The countdown continues.";
  }
  if (!link.answers) {
    return "The reservation service does not answer. The time left is counted from its last answer.";
  }
  return "";
}

export class Panel {
  #node;
  #heading = element("h2", { tabindex: "-1", autofocus: "" });
  #facts = element("p", { class: "gpudev-facts" });
  #trouble = element("p", { class: "gpudev-said gpudev-bad", role: "status" });
  #reason = element("p", { class: "gpudev-said" });
  #ssh = element("div", { class: "gpudev-row" });
  #copied = element("p", { class: "gpudev-said", role: "status" });
  #notice = element("p", { class: "gpudev-said", role: "status" });
  #notify;
  #more;
  #link;
  #anchor;
  #commands = "";

  /**
   * @param {import("./link.js").Link} link
   * @param {HTMLButtonElement} anchor
   */
  constructor(link, anchor) {
    this.#link = link;
    this.#anchor = anchor;
    this.#more = moreTime(link);
    this.#notify = button("", () => this.notify());
    const page = linkTo("Open its page", `${link.about.root}reservations/${link.about.id}`);
    page.target = "_blank";
    this.#heading.id = "gpudev-panel-heading";
    this.#node = element(
      "div",
      { class: "gpudev gpudev-panel", popover: "auto", role: "dialog", "aria-labelledby": this.#heading.id },
      element(
        "div",
        { class: "gpudev-row gpudev-spread" },
        this.#heading,
        button("Close", () => this.close()),
      ),
      this.#facts,
      this.#trouble,
      this.#reason,
      element("h3", {}, "More time"),
      this.#more.whole,
      element("h3", {}, "Reservation"),
      element("div", { class: "gpudev-row" }, page, this.#ssh),
      this.#copied,
      element(
        "div",
        { class: "gpudev-row" },
        this.#notify,
        button("Release …", () => this.release(), "gpudev-danger"),
      ),
      this.#notice,
    );
    this.#copied.hidden = this.#notice.hidden = true;
    this.#node.addEventListener("beforetoggle", (event) => {
      if (/** @type {ToggleEvent} */ (event).newState === "open") this.#place();
    });
    document.body.append(this.#node);
    // The browser opens and closes it, and says so to screen readers.
    anchor.popoverTargetElement = this.#node;
    this.update();
  }

  /** Above the status bar's item. */
  #place() {
    const { left } = this.#anchor.getBoundingClientRect();
    this.#node.style.left = `max(4px, min(${left}px, 100vw - 27.5rem))`;
    this.update();
  }

  open() {
    if (!this.#node.matches(":popover-open")) this.#node.showPopover();
  }

  close() {
    this.#node.hidePopover();
    this.#anchor.focus();
  }

  /** Open it and extend. @param {string} hours */
  extend(hours) {
    this.open();
    this.#more.ask(hours);
  }

  /** Open it where other lengths of time are typed. */
  other() {
    this.open();
    this.#more.focus();
  }

  release() {
    this.#node.hidePopover();
    askRelease(this.#link);
  }

  /** Turn notifications on or off. */
  async notify() {
    say(this.#notice, await toggle());
    this.update();
  }

  /** Copy the SSH command of a node. @param {number} rank */
  async copy(rank) {
    const command = this.#link.reservation?.ssh_commands[rank];
    if (!command) return;
    try {
      await navigator.clipboard.writeText(command);
      say(this.#copied, `Copied: ${command}`);
    } catch {
      say(this.#copied, `Your browser did not allow copying. Copy this command yourself: ${command}`);
    }
  }

  update() {
    const link = this.#link;
    const r = link.reservation;
    say(this.#trouble, trouble(link));
    say(this.#heading, r ? title(r) : "Your reservation");
    this.#notify.textContent = notifying() ? "Turn notifications off" : "Turn notifications on";
    if (!r) return;
    const left = link.left;
    const end = r.ends_at && left !== null ? `ends at ${when(r.ends_at)}, in ${span(left)}` : "";
    say(this.#facts, [size(r), end].filter(Boolean).join(" · "));
    say(this.#reason, r.state === "ready" ? sentence(reason(r)) : "");
    const commands = r.ssh_commands;
    if (commands.join() === this.#commands) return;
    this.#commands = commands.join();
    const label = (/** @type {number} */ rank) =>
      commands.length > 1 ? `Copy SSH command of node ${rank}` : "Copy SSH command";
    this.#ssh.replaceChildren(...commands.map((_, rank) => button(label(rank), () => this.copy(rank))));
  }
}
