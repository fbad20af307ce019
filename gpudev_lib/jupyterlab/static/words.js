/** What is said about a reservation. */

import { told } from "./sentences.js";

/**
 * @typedef {object} Reservation
 * @property {string} id
 * @property {string | null} name
 * @property {"queued" | "starting" | "ready" | "stopping" | "ended"} state
 * @property {string | null} server
 * @property {number} gpus
 * @property {number} nodes
 * @property {number} total_gpus
 * @property {string} gpu_type
 * @property {string} image
 * @property {number} hours
 * @property {string | null} reason
 * @property {import("./sentences.js").Sentence | null} [reason_data]
 * @property {string | null} starts_at
 * @property {string | null} ends_at
 * @property {string | null} outcome
 * @property {string[]} ssh_commands
 * @property {number} version
 */

/** Headings of the end page, by outcome. @type {Record<string, string>} */
const ENDS = {
  released: "Your reservation was released",
  expired: "Your time is up",
  idle: "Your reservation ended because the server was idle",
  failed: "Your server failed",
  node_lost: "A node of your reservation was lost",
  access_revoked: "Your access was revoked",
  ended_by_operator: "An operator ended your reservation",
};

const clock = new Intl.DateTimeFormat(undefined, { hour: "2-digit", minute: "2-digit", hourCycle: "h23" });
const dayAndClock = new Intl.DateTimeFormat(undefined, {
  weekday: "short",
  hour: "2-digit",
  minute: "2-digit",
  hourCycle: "h23",
});

/**
 * An instant in the reader's zone; with the weekday unless it is today.
 * @param {string} iso
 */
export function when(iso) {
  const at = new Date(iso);
  return (at.toDateString() === new Date().toDateString() ? clock : dayAndClock).format(at);
}

/**
 * A length of time: `2 h 14 min`, below two minutes in seconds. No line breaks within it.
 * @param {number} seconds
 */
export function span(seconds) {
  const whole = Math.max(0, Math.floor(seconds));
  if (whole < 120) return `${whole}\u00a0s`;
  const minutes = Math.floor(whole / 60);
  const hours = Math.floor(minutes / 60);
  if (!hours) return `${minutes}\u00a0min`;
  return `${hours}\u00a0h${minutes % 60 ? `\u00a0${minutes % 60}\u00a0min` : ""}`;
}

/** @param {Reservation} r */
export function title(r) {
  return r.name || r.id;
}

/** @param {Reservation} r */
export function size(r) {
  const gpus = `${r.gpus} GPU${r.gpus === 1 ? "" : "s"}`;
  return r.nodes > 1 ? `${r.nodes} nodes with ${gpus} each` : gpus;
}

/**
 * Why it is as it is, with times in the reader's zone; empty if the service says nothing.
 * @param {Reservation} r
 */
export function reason(r) {
  return told(r.reason_data ?? r.reason ?? "", when);
}

/** @param {Reservation} r */
export function over(r) {
  return r.state === "stopping" || r.state === "ended";
}

/**
 * The heading and the details of the end page.
 * @param {Reservation} r
 */
export function ending(r) {
  const heading = ENDS[r.outcome ?? ""] ?? "Your reservation has ended";
  if (r.state === "ended") return { heading, news: reason(r) };
  // While it stops, the reason has the outcome in other words; the rest is news.
  return { heading, news: told(r.reason_data?.params["detail"] ?? "", when) };
}

/**
 * A part of a sentence as a whole one.
 * @param {string} text
 */
export function sentence(text) {
  const trimmed = text.trim();
  if (!trimmed) return "";
  const begun = trimmed.charAt(0).toUpperCase() + trimmed.slice(1);
  return /[.!?]$/.test(begun) ? begun : `${begun}.`;
}
