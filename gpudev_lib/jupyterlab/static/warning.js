/** The dialog at the last two warnings before the end, answered once for all tabs. */

import { button, element, say, showDialog } from "./elements.js";
import { moreTime } from "./more.js";
import { lastWarnings } from "./notifications.js";
import { notify } from "./notify.js";
import { span, title, when } from "./words.js";

export class Warning {
  /** @type {HTMLDialogElement | null} */
  #dialog = null;
  #text = element("p");
  /** The end and threshold that the dialog is open for. */
  #shown = "";
  /** Answered where the browser keeps nothing. */
  #answered = "";
  #link;
  #key;

  /** @param {import("./link.js").Link} link */
  constructor(link) {
    this.#link = link;
    this.#key = `gpudev.answered.${link.about.id}`;
    window.addEventListener("storage", ({ key }) => {
      if (key === this.#key) this.update();
    });
  }

  /** Open, close or renew the dialog, as the time left wants it. */
  update() {
    const { reservation: r, left } = this.#link;
    const last = lastWarnings(this.#link.warnMinutes);
    const near = left === null || left <= 0 ? undefined : last.find((minutes) => left <= minutes * 60);
    if (!r?.ends_at || left === null || near === undefined || r.state !== "ready") {
      this.#close();
      return;
    }
    const about = `${r.ends_at} ${near}`;
    if (this.#seen() === about) {
      this.#close();
      return;
    }
    if (about !== this.#shown) {
      this.#close();
      this.#open(about, r, near, near === last.at(-1));
    }
    say(this.#text, `It ends at ${when(r.ends_at)}, in ${span(left)}. Save your work, or extend.`);
  }

  /**
   * @param {string} about
   * @param {import("./words.js").Reservation} r
   * @param {number} minutes
   * @param {boolean} first whether a notification is shown, too
   */
  #open(about, r, minutes, first) {
    const more = moreTime(this.#link);
    const later = button("Not now", () => this.#dialog?.close());
    const heading = `${title(r)}: less than ${minutes === 1 ? "1 minute" : `${minutes} minutes`} left`;
    const { dialog } = showDialog(heading, [
      this.#text,
      more.whole,
      element("div", { class: "gpudev-row gpudev-end" }, later),
    ]);
    dialog.addEventListener("close", () => {
      if (this.#dialog === dialog) this.#answer(about);
    });
    this.#dialog = dialog;
    this.#shown = about;
    if (first) {
      notify(`${r.id}-${minutes}-${r.ends_at}`, heading, "Save your work, or extend the reservation.");
    }
  }

  /** Close it without taking that for an answer. */
  #close() {
    const dialog = this.#dialog;
    this.#dialog = null;
    this.#shown = "";
    dialog?.close();
  }

  /** @param {string} about */
  #answer(about) {
    this.#dialog = null;
    this.#shown = "";
    this.#answered = about;
    try {
      localStorage.setItem(this.#key, about);
    } catch {
      // Then the dialogs of other tabs are answered there.
    }
  }

  #seen() {
    try {
      return localStorage.getItem(this.#key) ?? this.#answered;
    } catch {
      return this.#answered;
    }
  }

  /** Forget what was answered: the reservation has ended. */
  end() {
    this.#close();
    try {
      localStorage.removeItem(this.#key);
    } catch {
      // Nothing was kept.
    }
  }
}
