/** Small pieces of the page. */

/**
 * Make an element.
 * @template {keyof HTMLElementTagNameMap} T
 * @param {T} tag
 * @param {Record<string, string>} [attributes]
 * @param {(Node | string)[]} children
 * @returns {HTMLElementTagNameMap[T]}
 */
export function element(tag, attributes = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
  made.append(...children);
  return made;
}

/**
 * Make a button.
 * @param {string} label
 * @param {(event: Event) => unknown} act
 * @param {string} [kind]
 */
export function button(label, act, kind = "") {
  const made = element("button", { type: "button", class: `gpudev-button ${kind}`.trim() }, label);
  made.addEventListener("click", act);
  return made;
}

/**
 * Make a link that looks like a button.
 * @param {string} label
 * @param {string} href
 * @param {string} [kind]
 */
export function link(label, href, kind = "") {
  return element("a", { href, class: `gpudev-button ${kind}`.trim() }, label);
}

/**
 * Write a text if it is another one: each writing is read aloud.
 * @param {HTMLElement} where
 * @param {string} text
 */
export function say(where, text) {
  if (where.textContent !== text) where.textContent = text;
  where.hidden = !text;
}

let count = 0;

/**
 * Show a dialog above everything; Escape closes it unless `lasting`. A `kept` one can be shown again.
 *
 * The heading gets the focus, so that keys meant for a notebook press no button.
 * @param {string} heading
 * @param {(Node | string)[]} content
 * @param {{ lasting?: boolean, kind?: string, kept?: boolean }} [options]
 */
export function showDialog(heading, content, { lasting = false, kind = "", kept = false } = {}) {
  const id = `gpudev-heading-${(count += 1)}`;
  const first = element("h2", { id, tabindex: "-1", autofocus: "" }, heading);
  const attributes = { class: `gpudev gpudev-dialog ${kind}`.trim(), "aria-labelledby": id };
  const dialog = element("dialog", attributes, first, ...content);
  if (!kept) dialog.addEventListener("close", () => dialog.remove());
  if (lasting) dialog.addEventListener("cancel", (event) => event.preventDefault());
  document.body.append(dialog);
  dialog.showModal();
  return { dialog, heading: first };
}
