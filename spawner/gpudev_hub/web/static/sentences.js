/** Sentences of the service: the same as `told` of the Python client. */

/**
 * @typedef {object} Sentence
 * @property {string} code
 * @property {string} template
 * @property {Record<string, string | Sentence>} params
 * @property {Record<string, string>} instants
 */

/**
 * The words of a sentence.
 * @param {string | Sentence} sentence
 * @param {(iso: string) => string} when writes an instant
 * @returns {string}
 */
export function told(sentence, when) {
  if (typeof sentence === "string") return sentence;
  const { template, params, instants } = sentence;
  // A template has a name after every other brace; quoted text is in the values, which stay as they are.
  return template
    .split(/[{}]/)
    .map((piece, i) =>
      i % 2 ? (instants[piece] ? when(instants[piece]) : told(params[piece] ?? "", when)) : piece,
    )
    .join("");
}
