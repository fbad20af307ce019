/** Scripts of a reservation's page: follow it by long polls, open its server, warn before its end. */

import { lastWarnings } from "./notifications.js";
import { notify, offer } from "./notify.js";
import { visit } from "./reach.js";
import { ask, connected, pause, refresh } from "./refresh.js";
import { now, span, when } from "./times.js";

const WAIT = 25;
const root = document.body.dataset.root ?? "/";

/** Return the state that the page shows. */
function state() {
  return document.getElementById("state")?.dataset ?? {};
}

/**
 * Follow a reservation until it has ended.
 * @param {string} id
 */
export async function follow(id) {
  const place = document.getElementById("notify");
  if (place) offer(place);
  setInterval(warn, 1000);
  warn();
  let known = "";
  let failures = 0;
  while (state().state !== "ended") {
    const version = document.body.dataset.version ?? "0";
    try {
      const wait = known ? `?wait=${WAIT}&version=${version}` : "";
      const answer = await ask(`${root}api/v1/reservations/${encodeURIComponent(id)}${wait}`);
      const text = await answer.text();
      connected(true);
      failures = 0;
      // The first answer may be newer than the page. Others also differ if only the queue has changed.
      if (text !== known) {
        known = text;
        await renew();
      }
    } catch {
      failures += 1;
      connected(failures < 2);
      await pause(failures);
    }
  }
}

async function renew() {
  const { state: before, promise } = state();
  await refresh();
  const { state: after, url } = state();
  warn();
  if ("mine" in document.body.dataset) await tell(before, after, promise);
  // Open the server only if it became ready on this page.
  if (url && after === "ready" && (before === "queued" || before === "starting")) visit(url);
}

/**
 * Notify about changes of state that the owner waits for, or did not cause on this page.
 * @param {string | undefined} before
 * @param {string | undefined} after
 * @param {string | undefined} promise the guaranteed start before the change; it differs each time the reservation waits
 */
async function tell(before, after, promise) {
  const id = document.body.dataset.reservation ?? "";
  const over = after === "stopping" || after === "ended";
  if (over) document.getElementById("notify")?.setAttribute("hidden", "");
  if (before === "queued" && (after === "starting" || after === "ready")) {
    const body = after === "ready" ? "Your server is ready." : "Your server is starting.";
    await notify(`${id}-turn-${promise}`, `${name()}: your turn has come`, body);
  } else if (over && before !== "stopping" && before !== "ended") {
    const why = document.getElementById("why")?.textContent || document.querySelector("#now p")?.textContent;
    await notify(`${id}-end`, `${name()} ${after === "ended" ? "has ended" : "is ending"}`, why ?? "");
  }
}

/** Return the name of the reservation. */
function name() {
  return document.querySelector("h1")?.textContent ?? "";
}

/** The end that was further away than the notification when the page last looked. */
let awaited = "";

/**
 * Notify once, at the first of the last warnings.
 * @param {string} ends
 * @param {number} left seconds
 * @param {number[]} thresholds minutes
 */
function noticeEnd(ends, left, thresholds) {
  const minutes = Math.max(...lastWarnings(thresholds));
  if (left > minutes * 60) {
    awaited = ends;
  } else if (awaited === ends && left > 0) {
    awaited = "";
    const body = `Your reservation ends at ${when(new Date(ends))}. You can extend it on this page.`;
    const id = document.body.dataset.reservation;
    notify(`${id}-${minutes}-${ends}`, `${name()}: ${Math.ceil(left / 60)} min left`, body);
  }
}

/** Show the warning when the end is near. */
function warn() {
  const note = document.getElementById("warning");
  if (!note) return;
  const { ends, warnings } = state();
  const left = ends ? (new Date(ends).getTime() - now()) / 1000 : Infinity;
  /** The shortest threshold first. @type {[number, string][]} */
  const thresholds = JSON.parse(warnings ?? "[]");
  const words = thresholds.find(([minutes]) => left <= minutes * 60)?.[1];
  note.hidden = words === undefined || left <= 0;
  // Change the text only once per threshold, because screen readers announce each change.
  if (words !== undefined && note.textContent !== words) note.textContent = words;
  if (ends && "mine" in document.body.dataset)
    noticeEnd(
      ends,
      left,
      thresholds.map(([minutes]) => minutes),
    );
  if (!note.hidden && "mine" in document.body.dataset) document.title = `${span(left)} left`;
}
