/** Read lengths of time as people write them, like `gpudev/hours.py`. */

const NUMBER = "(?:[0-9]{1,9}(?:[.,][0-9]{0,9})?|[.,][0-9]{1,9})";
const SPACES = " \\t\\u00a0\\u202f";
const GAP = `[${SPACES}]*`;
const DAYS = `(?:(${NUMBER})${GAP}(?:days?|d)${GAP})?`;
const HOURS = `(${NUMBER})${GAP}(?:hours?|hrs?|h)${GAP}`;
const MINUTES = `(?:(${NUMBER})${GAP}(?:minutes?|mins?|m)${GAP})?`;
const SECONDS = `(?:(${NUMBER})${GAP}(?:seconds?|secs?|s))?`;

const AROUND = new RegExp(`^[${SPACES}]+|[${SPACES}]+$`, "g");
const PLAIN = new RegExp(`^-?${NUMBER}$`);
const CLOCK = /^()([0-9]{1,9}):([0-5][0-9])()$/;
const BARE_MINUTES = new RegExp(`^${DAYS}${HOURS}([0-5]?[0-9])()$`);
const UNITS = new RegExp(`^${DAYS}(?:${HOURS})?${MINUTES}${SECONDS}$`);

/**
 * Return hours for text such as `4`, `0,5`, `90m`, `1:30`, `1h30` or `2d`, NaN for other text.
 * @param {string} text
 */
export function readHours(text) {
  const written = text.replace(AROUND, "").toLowerCase();
  if (PLAIN.test(written)) return number(written);
  const found = CLOCK.exec(written) ?? BARE_MINUTES.exec(written) ?? UNITS.exec(written);
  if (!written || !found) return NaN;
  const [, days = 0, hours = 0, minutes = 0, seconds = 0] = found.map((part) => (part ? number(part) : 0));
  return days * 24 + hours + minutes / 60 + seconds / 3600;
}

/** @param {string} text */
function number(text) {
  return Number(text.replace(",", "."));
}
