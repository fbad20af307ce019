/**
 * Show times in the reader's time zone, and count down. Without scripts, the page has times in UTC.
 */

/** Milliseconds by which the server's clock is ahead of this one. */
const skew = new Date(document.body.dataset.now ?? Date.now()).getTime() - Date.now();

const clock = new Intl.DateTimeFormat(undefined, { hour: "2-digit", minute: "2-digit", hourCycle: "h23" });
const dayAndClock = new Intl.DateTimeFormat(undefined, {
  weekday: "short",
  day: "numeric",
  month: "short",
  hour: "2-digit",
  minute: "2-digit",
  hourCycle: "h23",
});
const clockWithSeconds = new Intl.DateTimeFormat(undefined, {
  hour: "2-digit",
  minute: "2-digit",
  second: "2-digit",
  hourCycle: "h23",
});
const dayAndClockWithSeconds = new Intl.DateTimeFormat(undefined, {
  weekday: "short",
  day: "numeric",
  month: "short",
  hour: "2-digit",
  minute: "2-digit",
  second: "2-digit",
  hourCycle: "h23",
});
const inFull = new Intl.DateTimeFormat(undefined, { dateStyle: "full", timeStyle: "long", hourCycle: "h23" });

/** Return the server's time in milliseconds. */
export function now() {
  return Date.now() + skew;
}

/**
 * Return an instant in the reader's time zone and language.
 * @param {Date} at
 */
export function when(at, seconds = false) {
  const today = new Date(now()).toDateString() === at.toDateString();
  if (seconds) return (today ? clockWithSeconds : dayAndClockWithSeconds).format(at);
  return (today ? clock : dayAndClock).format(at);
}

/**
 * Return a length of time without line breaks: `2 h 14 min`, or seconds below two minutes.
 * @param {number} seconds
 */
export function span(seconds) {
  return breakable(seconds).replaceAll(" ", "\u00a0");
}

/** @param {number} seconds */
function breakable(seconds) {
  const whole = Math.max(0, Math.floor(seconds));
  if (whole < 120) return `${whole} s`;
  const minutes = Math.floor(whole / 60);
  const hours = Math.floor(minutes / 60);
  if (hours === 0) return `${minutes} min`;
  return minutes % 60 ? `${hours} h ${minutes % 60} min` : `${hours} h`;
}

/**
 * Return the label of a bar, with instants in the reader's time zone.
 * @param {{ text: string, at?: string | null }[]} parts
 */
export function label(parts) {
  return parts.map((part) => (part.at ? when(new Date(part.at)) : part.text)).join("");
}

/**
 * Rewrite every time below `root`.
 * @param {ParentNode} root
 */
export function localise(root) {
  for (const element of root.querySelectorAll("time[data-when]")) {
    const at = new Date(element.getAttribute("datetime") ?? "");
    element.textContent = when(at, element.getAttribute("data-when") === "seconds");
    element.setAttribute("title", inFull.format(at));
  }
  for (const element of root.querySelectorAll("[data-tick]")) {
    const at = new Date(element.getAttribute("data-tick") ?? "");
    element.textContent = clock.format(at);
  }
  for (const element of root.querySelectorAll("svg a[data-parts]")) {
    const words = label(JSON.parse(element.getAttribute("data-parts") ?? "[]"));
    element.setAttribute("aria-label", words);
  }
  countDown(root);
}

/**
 * Bring every countdown below `root` up to date.
 * @param {ParentNode} root
 */
export function countDown(root) {
  for (const element of root.querySelectorAll("time[data-left]")) {
    const end = new Date(element.getAttribute("datetime") ?? "").getTime();
    const text = span((end - now()) / 1000);
    if (element.textContent !== text) element.textContent = text;
  }
}
