/** A reservation's page: follows it by long polls, opens its server, warns before its end. */

import { notify, offer } from "./notify.js";
import { visit } from "./reach.js";
import { ask, connected, pause, refresh } from "./refresh.js";
import { now, span, when } from "./times.js";

const WAIT = 25;
/** Minutes before the end at which the browser notifies, where the service warns then or later. */
const NOTICE = 15;
const root = document.body.dataset.root ?? "/";

/** How things stand, as the page last said. */
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
      // The first answer may be newer than the page, later ones differ also when only the queue has moved.
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
  // Only a server that was waited for here: who comes to look at a running one is left in peace.
  if (url && after === "ready" && (before === "queued" || before === "starting")) visit(url);
}

/**
 * Notify of a change of state that the owner waits for, or did not make on this page.
 * @param {string | undefined} before
 * @param {string | undefined} after
 * @param {string | undefined} promise the guaranteed start until now: another one for each stay in the queue
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

/** What people call the reservation. */
function name() {
  return document.querySelector("h1")?.textContent ?? "";
}

/** The end that was seen from further away than the notice. */
let awaited = "";

/**
 * Notify once when the end comes within the notice.
 * @param {string} ends
 * @param {number} left seconds
 * @param {number[]} thresholds minutes
 */
function noticeEnd(ends, left, thresholds) {
  const minutes = Math.max(...thresholds.filter((threshold) => threshold <= NOTICE));
  if (left > minutes * 60) {
    awaited = ends;
  } else if (awaited === ends && left > 0) {
    awaited = "";
    const body = `Your reservation ends at ${when(new Date(ends))}. You can extend it on this page.`;
    const id = document.body.dataset.reservation;
    notify(`${id}-${minutes}-${ends}`, `${name()}: ${Math.ceil(left / 60)} min left`, body);
  }
}

/** The note above everything when the end is near. */
function warn() {
  const note = document.getElementById("warning");
  if (!note) return;
  const { ends, warnings } = state();
  const left = ends ? (new Date(ends).getTime() - now()) / 1000 : Infinity;
  /** The shortest threshold first. @type {[number, string][]} */
  const thresholds = JSON.parse(warnings ?? "[]");
  const words = thresholds.find(([minutes]) => left <= minutes * 60)?.[1];
  note.hidden = words === undefined || left <= 0;
  // Written once per threshold: each writing is read aloud.
  if (words !== undefined && note.textContent !== words) note.textContent = words;
  if (ends && "mine" in document.body.dataset)
    noticeEnd(
      ends,
      left,
      thresholds.map(([minutes]) => minutes),
    );
  if (!note.hidden && "mine" in document.body.dataset) document.title = `${span(left)} left`;
}
