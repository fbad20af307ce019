/** Write sentences of the API as text, like `told` of the Python client. */

/**
 * @typedef {object} Sentence
 * @property {string} code
 * @property {string} template
 * @property {Record<string, string | Sentence>} params
 * @property {Record<string, string>} instants
 */

/**
 * Return the words of a sentence.
 * @param {string | Sentence} sentence
 * @param {(iso: string) => string} when writes an instant
 * @returns {string}
 */
export function told(sentence, when) {
  if (typeof sentence === "string") return sentence;
  const { template, params, instants } = sentence;
  // Templates alternate between text and names in braces. Values are not parsed.
  return template
    .split(/[{}]/)
    .map((piece, i) =>
      i % 2 ? (instants[piece] ? when(instants[piece]) : told(params[piece] ?? "", when)) : piece,
    )
    .join("");
}
