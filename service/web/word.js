/** The card of one word: how sure, drawn from what, placed by what, and what else could stand there. */

import { h, refill } from "./drawing.js";
import {
  byGroup,
  changeOfWord,
  GROUPS,
  linksOf,
  pieceName,
  rowsOfWord,
  sharesOver,
  TERMS,
  verdictOf,
  weightsOf,
} from "./reading.js";
import { figure, percent, say, times } from "./text.js";

const LISTED_FROM = 0.05;
const LISTED = 5;

/** A bar from 0 to `bound`. */
function bar(value, bound = 1) {
  const fill = h("span", { class: "fill" });
  fill.style.inlineSize = `${Math.min(100, Math.max(0, (100 * value) / bound))}%`;
  return h("span", { class: "bar", "aria-hidden": "true" }, fill);
}

/** A bar to either side of 0; what is negative is hatched. */
export function signedBar(value, bound) {
  const part = Math.max(-50, Math.min(50, (50 * value) / bound));
  const fill = h("span", { class: value < 0 ? "fill negative" : "fill" });
  fill.style.insetInlineStart = `${50 + Math.min(part, 0)}%`;
  fill.style.inlineSize = `${Math.abs(part)}%`;
  return h("span", { class: "bar signed", "aria-hidden": "true" }, fill);
}

/** Rows of name, bar and figure. */
function bars(rows) {
  const row = ({ name, drawn, told }) =>
    h("li", {}, h("span", { class: "name", dir: "auto" }, name), drawn, h("span", { class: "told" }, told));
  return h("ul", { class: "bars" }, rows.map(row));
}

/**
 * Draw the card of the word at `place`.
 * @param {object} answers what the service said about this word: whatIf, group, alternatives, contrast
 * @param {object|null} actions what can be asked of the service; null where there is none
 */
export function drawWord(section, explanation, place, answers, actions) {
  const title = h("h2", { id: "word-title" }, say("word"));
  if (!place) return refill(section, title, h("p", { class: "help" }, say("wordEmpty")));
  const parts =
    place.side === "target"
      ? targetParts(explanation, place.index, answers, actions)
      : sourceParts(explanation, place.index, actions);
  refill(
    section,
    title,
    ...heading(explanation, place),
    ...parts.flat().filter(Boolean),
    ...neighbors(explanation, place),
  );
}

function heading({ source, hypothesis }, { side, index }) {
  const { words } = side === "source" ? source : hypothesis.text;
  return [
    h("p", { class: "headword", dir: "auto" }, words[index].text),
    h("p", { class: "help" }, say("wordOf", { side: say(side), index: index + 1, count: words.length })),
  ];
}

function targetParts(explanation, index, answers, actions) {
  const { hypothesis, source } = explanation;
  const probability = hypothesis.wordProbabilities[index];
  const names = [...source.words.map((word) => word.text), say("end")];
  return [
    probability === undefined
      ? null
      : bars([{ name: say("probability"), drawn: bar(probability), told: percent(probability) }]),
    h("h3", {}, say("drawnFrom")),
    hypothesis.evidence === "posterior" ? h("p", { class: "help" }, say("evidencePosterior")) : null,
    ...drawnFrom(explanation, "target", index, names, say("unaligned")),
    ...verdict(explanation, index, answers, actions),
    ...alternatives(explanation, index, answers, actions),
  ];
}

function sourceParts(explanation, index, actions) {
  const names = explanation.hypothesis.text.words.map((word) => word.text);
  const hide = { type: "button", "data-act": "hide", click: () => actions.hide(index) };
  const ask = actions && h("button", hide, `${say("whatIf")}: ${say("hide")}`);
  return [h("h3", {}, say("feeds")), ...drawnFrom(explanation, "source", index, names, say("unalignedSource")), ask];
}

function drawnFrom({ hypothesis }, side, index, names, unaligned) {
  const weights = weightsOf(hypothesis, side, index).slice(0, names.length);
  const order = weights.map((weight, other) => ({ weight, other })).sort((a, b) => b.weight - a.weight);
  const listed = order.filter(({ weight }) => weight >= LISTED_FROM).slice(0, LISTED);
  const rows = listed.map(({ weight, other }) => ({ name: names[other], drawn: bar(weight), told: percent(weight) }));
  return [bars(rows), linksOf(hypothesis, side, index).length ? null : h("p", { class: "help" }, unaligned)];
}

/** In plain words: was this word placed by position or by meaning? */
export function verdictText(explanation, index) {
  const word = explanation.hypothesis.text.words[index].text;
  const { kind, groups } = verdictOf(sharesOver(explanation, rowsOfWord(explanation, index)));
  const name = `verdict${kind[0].toUpperCase()}${kind.slice(1)}`;
  const told = groups && Object.fromEntries(GROUPS.map((group) => [group, percent(groups[group])]));
  return { kind, groups, text: say(name, { word, share: told?.[kind], ...told }) };
}

function verdict(explanation, index, answers, actions) {
  if (!explanation.terms.size) return [];
  const { kind, groups, text } = verdictText(explanation, index);
  const said = h("p", { class: "verdict", "data-verdict": kind }, text);
  if (!groups) return [said];
  const bound = Math.max(1, ...Object.values(groups).map(Math.abs));
  const rows = GROUPS.map((group) => ({
    name: say(group),
    drawn: signedBar(groups[group], bound),
    told: percent(groups[group], true),
  }));
  return [
    said,
    bars(rows),
    rowsOfWord(explanation, index).includes(0) ? h("p", { class: "help" }, say("firstWord")) : null,
    h("p", { class: "help" }, say("caveat")),
    ...check(explanation, index, kind, answers, actions),
  ];
}

function check(explanation, index, kind, answers, actions) {
  if (!actions) return [];
  if (explanation.forced) return [h("p", { class: "help" }, say("checkForced"))];
  const wanted = GROUPS.includes(kind) ? [kind] : GROUPS;
  const button = (group) =>
    h(
      "button",
      { type: "button", "data-check": group, click: () => actions.check(group) },
      say("check", { part: say("leaveOut", { group: say(group) }) }),
    );
  return [
    h("p", { class: "help" }, say("checkHelp")),
    h("p", { class: "checks" }, wanted.map(button)),
    answers.group ? checked(explanation, index, answers) : null,
  ];
}

function checked(explanation, index, { whatIf, group }) {
  const word = explanation.hypothesis.text.words[index].text;
  const stays = !whatIf.changedBefore.includes(index);
  const before = whatIf.before.wordProbabilities[index] ?? 0;
  const after = before * Math.exp(changeOfWord(whatIf, index));
  const rows = rowsOfWord(explanation, index);
  const distance = rows.reduce((sum, row) => sum + (whatIf.rowDistances[row] ?? 0), 0) / rows.length;
  const belief = { before: percent(before), after: percent(after), distance: percent(distance) };
  const same = whatIf.before.text.text === whatIf.after.text.text;
  return h(
    "div",
    { class: "checked", role: "status" },
    h("p", {}, h("strong", {}, say(stays ? "checkStays" : "checkChanges", { word, group: say(group) }))),
    h("p", {}, say("checkBelief", belief)),
    h("p", { dir: "auto" }, same ? say("checkSame") : say("checkText", { text: whatIf.after.text.text })),
  );
}

function alternatives(explanation, index, answers, actions) {
  if (!actions) return [];
  const ask = h(
    "button",
    { type: "button", "data-act": "alternatives", click: () => actions.alternatives(index) },
    say("alternatives"),
  );
  if (!answers.alternatives) return [h("p", {}, ask)];
  const { text, wordProbabilities } = explanation.hypothesis;
  const word = text.words[index].text;
  const item = (each, place) => alternative(each, place, word, index, actions);
  const listed = answers.alternatives.some((each) => each.text === word);
  return [
    h("h3", { "data-act": "alternatives", tabindex: -1 }, say("alternativesTitle", { word })),
    h("p", { class: "help" }, say("alternativesHelp")),
    h(
      "ul",
      { class: "alternatives" },
      listed ? null : choice(word, wordProbabilities[index], say("itselfWhole")),
      answers.alternatives.map(item),
    ),
    ...(answers.contrast ? contrast(explanation, answers.contrast) : []),
  ];
}

function alternative({ text = "", logProbability = 0, hypothesis }, place, word, index, actions) {
  const probability = Math.exp(logProbability);
  if (text === word) return choice(text, probability, say("itself"));
  const goOn = h(
    "button",
    {
      type: "button",
      class: "plain",
      "aria-label": say("goOnLabel", { word: text }),
      click: () => actions.goOn(hypothesis.text),
    },
    say("goOn"),
  );
  const whyNot = h(
    "button",
    {
      type: "button",
      class: "plain",
      "data-why": place,
      "aria-label": say("whyNotLabel", { word, other: text }),
      click: () => actions.contrast(index, text),
    },
    say("whyNot"),
  );
  const would = h("span", { class: "would help", dir: "auto" }, hypothesis.text);
  return choice(text || say("theEnd"), probability, text ? [goOn, " ", whyNot] : goOn, would);
}

/** One line of what could stand here. */
function choice(name, probability, does, would = null) {
  return h(
    "li",
    {},
    h("span", { class: "name", dir: "auto" }, name),
    bar(probability),
    h("span", { class: "told" }, percent(probability)),
    h("span", { class: "does" }, does),
    would,
  );
}

function contrast({ source }, reply) {
  const word = wordsOf(reply.chosen);
  const other = wordsOf(reply.alternative);
  const difference = reply.logProbabilityDifference ?? 0;
  const values = { word, other, times: times(difference), nats: figure(Math.abs(difference)) };
  const title = h("h3", {}, say("contrastTitle", { word, other }));
  const said = h("p", {}, say(difference >= 0 ? "contrastMore" : "contrastLess", values));
  return [title, said, ...contrastSources(source, reply, word, other), ...contrastShares(reply, word, other)];
}

function wordsOf({ hypothesis, targetWords = [] }) {
  return targetWords.map((word) => hypothesis.target.words[word].text).join(" ") || say("theEnd");
}

function contrastSources(source, { sourceWeightDifferences: differences = [] }, word, other) {
  const names = [...source.words.map((each) => each.text), say("end")];
  const large = differences
    .map((value, index) => ({ value, index }))
    .filter(({ value }) => Math.abs(value) >= LISTED_FROM / 5);
  if (!large.length) return [h("p", { class: "help" }, say("contrastSame"))];
  const row = ({ value, index }) => ({ name: names[index], drawn: signedBar(value, 1), told: percent(value, true) });
  return [h("h4", {}, say("contrastSources", { word, other })), bars(large.map(row))];
}

function contrastShares({ shareDifferences = [] }, word, other) {
  if (!shareDifferences.some((value) => Math.abs(value) >= 0.005)) return [];
  const groups = byGroup(new Map(TERMS.map((term, index) => [term, shareDifferences[index]])));
  const rows = GROUPS.map((group) => ({
    name: say(group),
    drawn: signedBar(groups[group], 1),
    told: percent(groups[group], true),
  }));
  return [h("h4", {}, say("contrastShares", { word, other })), bars(rows)];
}

function neighbors({ source, hypothesis, sides }, { side, index }) {
  const nearest = sides[side]?.nearestTokens;
  if (!nearest?.length) return [];
  const { words } = side === "source" ? source : hypothesis.text;
  const tokens = words[index].pieces.map((piece) => nearest[piece]).filter(Boolean);
  const listed = (token) =>
    (token.neighbors ?? []).map((each) => `${pieceName(each)} ${figure(each.cosine ?? 0)}`).join(", ");
  const item = (token) => [
    h("dt", { dir: "auto" }, side === "target" ? say("neighborsRead", { piece: pieceName(token) }) : pieceName(token)),
    h("dd", { dir: "auto" }, listed(token) || say("noNeighbors")),
  ];
  return [
    h("h3", {}, say("neighbors")),
    h("dl", { class: "neighbors", title: say("neighborsHelp") }, tokens.map(item).flat()),
  ];
}
