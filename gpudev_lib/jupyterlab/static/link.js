/** The reservation of this server, followed for one tab. */

import { over } from "./words.js";

/** @typedef {import("./words.js").Reservation} Reservation */

/**
 * What the service says of the reservation.
 * @typedef {object} Status
 * @property {string | null} outcome also while it is ending
 * @property {number | null} seconds_left
 * @property {number[]} warn_minutes
 */

/**
 * What the server says.
 * @typedef {object} Told
 * @property {Reservation | null} reservation
 * @property {boolean} answers
 * @property {boolean} over
 * @property {string} notice
 * @typedef {Status & Told} State
 */

/**
 * What was refused.
 * @typedef {object} Refusal
 * @property {string} code
 * @property {string} message
 * @property {string} [hint]
 * @property {number | null} [longest_hours]
 */

/** Milliseconds before each attempt to reach the server again; the last one goes on. */
const PAUSES = [500, 1000, 2000, 3000, 5000];
const PATIENCE = 8000;

/**
 * Follows the reservation through the server, and through the reservation service itself while the server does
 * not answer. Sends `change` whenever anything is different.
 */
export class Link extends EventTarget {
  /** As last known. @type {Reservation | null} */
  reservation = null;
  /** Minutes before the end at which its owner is warned. @type {number[]} */
  warnMinutes = [];
  /** What the server has to say about itself; empty if nothing. */
  notice = "";
  /** Whether the reservation service answers the server. */
  answers = true;
  /** Whether this server answers. */
  connected = true;
  /** Whether the service wants a new login before it says anything. */
  stranger = false;

  /** @type {{ seconds: number, at: number } | null} */
  #left = null;
  #failures = 0;
  /** @type {WebSocket | null} */
  #socket = null;
  /** @type {ReturnType<typeof setTimeout> | undefined} */
  #retry;
  /** The extension that was asked for and not answered. @type {{ hours: string, id: string } | null} */
  #unanswered = null;
  #services;
  #settings;
  #base;

  /**
   * @param {typeof import("@jupyterlab/services")} services
   * @param {import("@jupyterlab/services").ServerConnection.ISettings} settings
   * @param {{ id: string, root: string }} about the reservation, and the path of the service
   */
  constructor(services, settings, about) {
    super();
    this.about = about;
    this.#services = services;
    this.#settings = settings;
    this.#base = new URL("gpudev/", new URL(settings.baseUrl, location.href));
    document.addEventListener("visibilitychange", () => this.look());
    window.addEventListener("online", () => this.look());
  }

  /** Begin to follow. */
  start() {
    clearTimeout(this.#retry);
    const url = new URL("live", this.#base);
    url.protocol = url.protocol === "https:" ? "wss:" : "ws:";
    const socket = new this.#settings.WebSocket(url.href);
    this.#socket = socket;
    socket.addEventListener("message", (event) => {
      this.#failures = 0;
      this.#take(JSON.parse(event.data));
    });
    socket.addEventListener("close", () => this.#lost());
  }

  /** Look now rather than later: the machine was asleep, or JupyterLab misses its server. */
  look() {
    if (document.hidden || this.ended) return;
    if (this.#socket?.readyState === WebSocket.OPEN) this.#socket.send("?");
    else if (this.#socket?.readyState === WebSocket.CLOSED) this.start();
  }

  /** Seconds left by the clock of the service; `null` if there is no end. */
  get left() {
    return this.#left && this.#left.seconds - (performance.now() - this.#left.at) / 1000;
  }

  /** Whether the reservation has ended, or is ending. */
  get ended() {
    return this.reservation !== null && over(this.reservation);
  }

  /**
   * Extend by a length of time, as people write it. Answers what was refused, or nothing.
   * @param {string} hours
   * @returns {Promise<Refusal | null>}
   */
  async extend(hours) {
    if (this.#unanswered?.hours !== hours) {
      const id = crypto.getRandomValues(new Uint32Array(4)).join("-");
      this.#unanswered = { hours, id };
    }
    const refusal = await this.#ask("extend", { hours, request_id: this.#unanswered.id });
    if (refusal?.code !== "unavailable") this.#unanswered = null;
    return refusal;
  }

  /**
   * Release the reservation. Answers what was refused, or nothing.
   * @returns {Promise<Refusal | null>}
   */
  release() {
    return this.#ask("release", {});
  }

  /**
   * @param {string} what
   * @param {object} body
   * @returns {Promise<Refusal | null>}
   */
  async #ask(what, body) {
    const url = new URL(what, this.#base).href;
    const init = { method: "POST", body: JSON.stringify(body), signal: AbortSignal.timeout(30_000) };
    try {
      const answer = await this.#services.ServerConnection.makeRequest(url, init, this.#settings);
      const found = await answer.json();
      if (!answer.ok) return found.error ?? { code: "unavailable", message: found.message ?? "" };
      this.#take(found);
      return null;
    } catch {
      return { code: "unavailable", message: "Your server does not answer. Try again in a minute." };
    }
  }

  /** @param {State} state */
  #take(state) {
    this.connected = true;
    this.stranger = false;
    this.answers = state.answers;
    this.notice = state.notice;
    if (state.reservation) this.#know(state.reservation, state);
    if (state.over && !this.ended) this.#inquire();
    this.#changed();
  }

  /**
   * @param {Reservation} reservation
   * @param {Status} status
   */
  #know(reservation, status) {
    if (this.reservation && reservation.version < this.reservation.version) return;
    this.reservation = { ...reservation, outcome: status.outcome };
    this.warnMinutes = status.warn_minutes;
    this.#left =
      status.seconds_left === null ? null : { seconds: status.seconds_left, at: performance.now() };
  }

  #changed() {
    this.dispatchEvent(new Event("change"));
  }

  async #lost() {
    this.#failures += 1;
    // A connection may break for a moment; that need not be said.
    if (this.#failures > 1 && !this.ended) {
      this.connected = false;
      await this.#inquire();
      this.#changed();
    }
    if (this.ended) return;
    const pause = PAUSES[Math.min(this.#failures, PAUSES.length) - 1] ?? 0;
    this.#retry = setTimeout(() => this.start(), pause);
  }

  /** Ask the service itself, with the browser's own login there: it outlives the server. */
  async #inquire() {
    try {
      const answer = await fetch(`${this.about.root}reservations/${this.about.id}/lab`, {
        cache: "no-store",
        headers: { Accept: "application/json" },
        signal: AbortSignal.timeout(PATIENCE),
      });
      this.stranger = answer.status === 401 || answer.status === 403;
      if (answer.ok) {
        const status = await answer.json();
        this.#know(status.reservation, status);
      }
      this.#changed();
    } catch {
      // Nothing answers. The next attempt asks again.
    }
  }
}
