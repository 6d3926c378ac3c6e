/**
 * What an ExplainResponse says, in numbers that can be drawn. Rows are target, columns are source; the last column is
 * the end of sentence, and so is the last row unless the translation was cut.
 */

/** The parts of a state, in the order of the wire. */
export const COMPONENTS = ["temporal", "input_driven", "delta"];

/** All nine terms as `encoder.decoder`, encoder outermost. */
export const TERMS = COMPONENTS.flatMap((encoder) => COMPONENTS.map((decoder) => `${encoder}.${decoder}`));

/** What a lay person asks after: position, meaning, or the rest of the sentence. */
export const GROUPS = ["position", "meaning", "context"];

/** The thirteen subsets that a reply measures, and the terms each keeps. */
export const SUBSETS = new Map([
  ["temporal_temporal", ["temporal.temporal"]],
  ...COMPONENTS.map((left) => [`without_${left}`, TERMS.filter((term) => !term.split(".").includes(left))]),
  ...TERMS.map((left) => [`without_${left.replace(".", "_")}`, TERMS.filter((term) => term !== left)]),
]);

const MOSTLY = 0.5;

/** Position: both sides' positions. Meaning: a word on either side, and nothing of this sentence alone. */
export function groupOf(term) {
  if (term.includes("delta")) return "context";
  return term === "temporal.temporal" ? "position" : "meaning";
}

/** The terms of a group. */
export const termsOf = (group) => TERMS.filter((term) => groupOf(term) === group);

/** The terms that stay when a group is left out. */
export const termsWithout = (group) => TERMS.filter((term) => groupOf(term) !== group);

/** A Matrix of the wire, packed or listed, as rows. */
export function rowsOf(matrix) {
  const { rows = 0, columns = 0, packedFloat32, values = [] } = matrix ?? {};
  const flat = packedFloat32 ? unpacked(packedFloat32) : values;
  return Array.from({ length: rows }, (_, row) => Array.from(flat.slice(row * columns, (row + 1) * columns)));
}

function unpacked(base64) {
  const bytes = Uint8Array.from(atob(base64), (character) => character.charCodeAt(0));
  const view = new DataView(bytes.buffer);
  return Array.from({ length: bytes.length / 4 }, (_, index) => view.getFloat32(4 * index, true));
}

/** A reply with every packed matrix written out, for people who read JSON. */
export function writtenOut(reply) {
  return JSON.stringify(
    reply,
    (_, value) => {
      if (!value?.packedFloat32) return value;
      return { rows: value.rows, columns: value.columns, values: unpacked(value.packedFloat32) };
    },
    1,
  );
}

/** A TokenizedText: its words and pieces, with places in UTF-16 units as JavaScript counts them. */
export function readText({ text = "", pieces = [], words = [] } = {}) {
  return {
    text,
    words: words.map((word) => ({
      text: word.text ?? "",
      start: word.span?.startUtf16 ?? 0,
      end: word.span?.endUtf16 ?? 0,
      pieces: word.pieceIndices ?? [],
    })),
    pieces: pieces.map((piece) => ({ text: pieceName(piece), word: piece.wordIndex })),
  };
}

/** The vocabulary's spelling of a piece, its space (U+2581) as a dot, which is quieter. */
export const pieceName = ({ piece = "" }) => piece.replaceAll("\u2581", "·");

/** A Hypothesis with its alignment. `wordWeights` are those that links were drawn from: the posterior or attention. */
function readHypothesis(hypothesis) {
  const alignment = hypothesis.alignment ?? {};
  const links = alignment.links ?? [];
  const attention = { words: rowsOf(alignment.wordWeights), pieces: rowsOf(alignment.pieceWeights) };
  const posterior = { words: rowsOf(alignment.posteriorWordWeights), pieces: rowsOf(alignment.posteriorPieceWeights) };
  const evidence = alignment.evidence === "ALIGNMENT_EVIDENCE_POSTERIOR" ? "posterior" : "attention";
  return {
    text: readText(hypothesis.target),
    logProbability: hypothesis.logProbability ?? 0,
    wordProbabilities: (hypothesis.wordLogProbabilities ?? []).map(Math.exp),
    tokenLogProbabilities: hypothesis.tokenLogProbabilities ?? [],
    evidence,
    wordWeights: (evidence === "posterior" ? posterior : attention).words,
    attention,
    posterior,
    links: links.map((link) => ({
      target: link.targetIndex ?? 0,
      source: link.sourceIndex ?? 0,
      weight: link.weight ?? 0,
    })),
    shift: alignment.shift ?? 0,
  };
}

/** Everything the page asks of an ExplainResponse. */
export function readExplanation(reply) {
  const decomposition = reply.decomposition ?? {};
  return {
    reply,
    forced: reply.forced ?? false,
    source: readText(reply.source),
    hypothesis: readHypothesis(reply.hypothesis),
    scores: rowsOf(reply.attentionScores),
    weights: rowsOf(reply.attentionWeights),
    terms: new Map((decomposition.terms ?? []).map((term) => [nameOf(term), readTerm(term)])),
    distances: new Map((decomposition.subsetDistances ?? []).map((each) => [each.subset, each.totalVariation ?? 0])),
    sides: { source: decomposition.encoderComponents, target: decomposition.decoderComponents },
    warnings: reply.warnings ?? [],
    suspicions: (reply.suspicions ?? []).map(readSuspicion),
  };
}

function readSuspicion({ reason, value = 0, threshold = 0, message }) {
  const kind = reason.replace("SUSPICION_REASON_", "");
  return { kind: kind === "LENGTH" ? `LENGTH_${value > threshold ? "long" : "short"}` : kind, value, message };
}

const nameOf = ({ encoder, decoder }) => `${componentOf(encoder)}.${componentOf(decoder)}`;
const componentOf = (name) => name.replace("COMPONENT_", "").toLowerCase();

/** `encoder.decoder` as a TermKey of the wire. */
export function termKey(term) {
  const [encoder, decoder] = term.split(".").map((name) => `COMPONENT_${name.toUpperCase()}`);
  return { encoder, decoder };
}

function readTerm(term) {
  return { contribution: rowsOf(term.contribution), share: term.share ?? 0, rowShares: term.rowShares ?? [] };
}

/** The rows of attention that align the words's pieces: the bundle's shift moves them. */
export function rowsOfWord(explanation, word) {
  const { text, shift } = explanation.hypothesis;
  const last = explanation.weights.length - 1;
  const pieces = text.words[word]?.pieces ?? [last];
  return pieces.map((piece) => Math.min(Math.max(piece + shift, 0), last));
}

/**
 * Softmax-aware shares of the nine terms over some rows together: each row's shares, weighted by the variance of its
 * scores (docs/decomposition.md, equation 13). Null where every row is constant, which has no shape.
 */
export function sharesOver(explanation, rows) {
  const shaped = rows.filter((row) => !isConstant(explanation, row));
  const variances = rows.map((row) => (shaped.includes(row) ? variance(explanation.scores[row]) : 0));
  const total = variances.reduce((sum, each) => sum + each, 0);
  if (!shaped.length) return null;
  const pooled = (term) => rows.reduce((sum, row, index) => sum + term.rowShares[row] * variances[index], 0) / total;
  return new Map([...explanation.terms].map(([name, term]) => [name, pooled(term)]));
}

function isConstant(explanation, row) {
  const warned = explanation.warnings.filter((warning) => warning.kind === "WARNING_KIND_CONSTANT_SCORES");
  return warned.some(({ positions = [] }) => !positions.length || positions.includes(row));
}

function variance(values) {
  const mean = average(values);
  return average(values.map((value) => (value - mean) ** 2));
}

const average = (values) => values.reduce((sum, value) => sum + value, 0) / values.length;

/** The shares of the whole sentence. */
export function sharesOfAll(explanation) {
  return new Map([...explanation.terms].map(([name, term]) => [name, term.share]));
}

/** Shares added up into position, meaning and context. */
export function byGroup(shares) {
  return Object.fromEntries(
    GROUPS.map((group) => [group, termsOf(group).reduce((sum, term) => sum + shares.get(term), 0)]),
  );
}

/** Which group, alone, has more than half: "position", "meaning", "context", "mixed", or "flat" without shares. */
export function verdictOf(shares) {
  if (!shares) return { kind: "flat" };
  const groups = byGroup(shares);
  const large = GROUPS.filter((group) => groups[group] > MOSTLY);
  return { kind: large.length === 1 ? large[0] : "mixed", groups };
}

/** What the matrix view `show` draws at the level of pieces; whether its values are signed. */
export function pieceMatrix(explanation, show) {
  const [kind, ...rest] = show.split(/[.:]/);
  if (kind === "weights") return { values: explanation.weights, signed: false };
  if (kind === "scores") return { values: explanation.scores, signed: true };
  if (kind === "sum") return { values: sumOf(explanation, TERMS), signed: true };
  if (kind === "term") return { values: explanation.terms.get(rest.join(".")).contribution, signed: true };
  return { values: sumOf(explanation, SUBSETS.get(rest[0])).map(softmax), signed: false };
}

/** The sum of some terms: scores as they would be of those alone. */
function sumOf(explanation, names) {
  const contributions = names.map((name) => explanation.terms.get(name).contribution);
  return contributions[0].map((row, s) => row.map((_, t) => contributions.reduce((sum, each) => sum + each[s][t], 0)));
}

function softmax(row) {
  const highest = Math.max(...row);
  const powers = row.map((value) => Math.exp(value - highest));
  const total = powers.reduce((sum, power) => sum + power, 0);
  return powers.map((power) => power / total);
}

/** Each row less its mean, which softmax ignores. */
export const centered = (rows) => rows.map((row) => row.map((value) => value - average(row)));

/**
 * Pieces to words. Weights: source pieces summed; anything signed: averaged, so that sums of terms stay sums. Target
 * pieces averaged. As bundle/alignment.py does, shift included.
 */
export function byWords(explanation, { values, signed }) {
  const { source, hypothesis } = explanation;
  const columns = source.words.map((word) => word.pieces);
  const taken = new Set(columns.flat());
  columns.push(values[0].map((_, column) => column).filter((column) => !taken.has(column)));
  const rows = hypothesis.text.words.map((_, word) => rowsOfWord(explanation, word));
  if (values.length > hypothesis.text.pieces.length) rows.push([values.length - 1]);
  const cell = (row, indices) =>
    indices.reduce((sum, column) => sum + values[row][column], 0) / (signed ? indices.length : 1);
  return { values: rows.map((row) => columns.map((column) => average(row.map((each) => cell(each, column))))), signed };
}

/** The words a word is linked to, strongest first. */
export function linksOf(hypothesis, side, index) {
  const other = side === "target" ? "source" : "target";
  return hypothesis.links
    .filter((link) => link[side] === index)
    .sort((a, b) => b.weight - a.weight)
    .map((link) => ({ index: link[other], weight: link.weight }));
}

/** Weights between a word and every word of the other side (and, of a target word, the end of sentence). */
export function weightsOf(hypothesis, side, index) {
  return side === "target" ? hypothesis.wordWeights[index] : hypothesis.wordWeights.map((row) => row[index]);
}

/** The links as `source-target`, in the order of the source. */
export function pharaoh(hypothesis) {
  const ordered = [...hypothesis.links].sort((a, b) => a.source - b.source || a.target - b.target);
  return ordered.map((link) => `${link.source}-${link.target}`).join(" ");
}

/** A WhatIfResponse: both translations, what changed, and by how much. */
export function readWhatIf(reply) {
  return {
    source: readText(reply.changedSource ?? reply.source),
    before: readHypothesis(reply.baseline),
    after: readHypothesis(reply.changed),
    changedBefore: reply.baselineWordsChanged ?? [],
    changedAfter: reply.changedWords ?? [],
    logProbabilityChange: reply.logProbabilityChange ?? 0,
    tokenChanges: reply.tokenLogProbabilityChanges ?? [],
    distance: reply.attentionDistance ?? 0,
    rowDistances: reply.rowAttentionDistances ?? [],
  };
}

/** How a what-if changes the log-probability of a word of the translation without it, nats. */
export function changeOfWord({ before, tokenChanges }, word) {
  return before.text.words[word].pieces.reduce((sum, piece) => sum + (tokenChanges[piece] ?? 0), 0);
}

/** Warnings as notes: the words they are about, on which side, and on the target side what had just been read. */
export function notesOf(explanation) {
  const { source, hypothesis, sides, warnings } = explanation;
  return warnings.map(({ kind, message, side, positions = [] }) => {
    const onSource = side === "SIDE_SOURCE";
    const { pieces } = onSource ? source : hypothesis.text;
    const words = positions.map((position) => pieces[position]?.word).filter((word) => word !== undefined);
    const read = positions
      .map((position) => sides.target?.nearestTokens?.[position])
      .map((token) => (token ? pieceName(token) : ""));
    return {
      kind: kind.replace("WARNING_KIND_", ""),
      message,
      side: onSource ? "source" : "target",
      words: [...new Set(words)],
      positions,
      read,
    };
  });
}
