/** A reservation's page: follows it by long polls, opens its server, warns before its end. */

import { visit } from "./reach.js";
import { ask, connected, pause, refresh } from "./refresh.js";
import { now, span } from "./times.js";

const WAIT = 25;
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
  const before = state().state;
  await refresh();
  const { state: after, url } = state();
  warn();
  // Only a server that was waited for here: who comes to look at a running one is left in peace.
  if (url && after === "ready" && (before === "queued" || before === "starting")) visit(url);
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
  if (!note.hidden && "mine" in document.body.dataset) document.title = `${span(left)} left`;
}
