/** The interlinear edition: words in lines, what stands above and below each, and walking from word to word. */

import { h } from "./drawing.js";
import { linksOf, weightsOf } from "./reading.js";
import { figure, knows, percent, say } from "./text.js";

const SURE = 0.8;
const FAIR = 0.5;
const SHOWN_FROM = 0.01; // weights below it get no figure

/** How sure a probability is, as a class that CSS draws as a line: solid, dashed, dotted. */
export function sureness(probability) {
  if (probability === undefined) return "";
  if (probability >= SURE) return "sure";
  return probability >= FAIR ? "fair" : "unsure";
}

/**
 * A line of words, each with room above for a figure and, if there are glosses, a gloss below. What stands between
 * words in the text (space, or nothing) stands between them here.
 * @param {object} text as of readText
 * @param {(index: number) => {classes?: string, gloss?: string, notes?: number[]}} dress
 */
export function line(side, text, dress, label) {
  const units = text.words.map((word, index) => {
    const { classes = "", gloss, notes = [] } = dress(index);
    const marks = notes.map((note) => h("sup", { class: "note-mark" }, String(note)));
    const spaced = text.words[index + 1]?.start > word.end ? " spaced" : "";
    return h(
      "span",
      { class: `unit${spaced}` },
      h("span", { class: "above", "aria-hidden": "true" }),
      h("span", { class: `word ${classes}`, "data-side": side, "data-index": index }, word.text, marks),
      gloss === undefined ? null : h("span", { class: "gloss", dir: "auto", "aria-hidden": "true" }, gloss),
    );
  });
  return h("div", { class: `line ${side}`, dir: "auto", role: "group", "aria-label": label }, units);
}

/** Draw both lines of an explanation and the notes that belong to them. */
export function drawEdition(section, explanation, notes) {
  const { source, hypothesis, forced, suspicions = [] } = explanation;
  const dress = (side) => (index) => ({
    classes: classesOf(hypothesis, side, index),
    gloss: side === "target" ? glossOf(explanation, index) : undefined,
    notes: notes.filter((note) => note.side === side && note.words.includes(index)).map((note) => note.number),
  });
  section.replaceChildren(
    h("h2", { id: "edition-title" }, say("edition")),
    h("h3", {}, say("source")),
    line("source", source, dress("source"), say("source")),
    h("h3", {}, say(forced ? "given" : "target")),
    line("target", hypothesis.text, dress("target"), say("target")),
    ...doubts(suspicions),
    h("p", { class: "readout", "aria-hidden": "true" }),
    legend(),
    ...noteList(notes),
  );
  for (const word of section.querySelectorAll(".word[data-side]")) {
    word.setAttribute("tabindex", word.dataset.index === "0" && word.dataset.side === "source" ? "0" : "-1");
    word.setAttribute("role", "button");
    word.setAttribute("aria-label", spokenWord(explanation, word.dataset.side, Number(word.dataset.index)));
  }
}

function classesOf(hypothesis, side, index) {
  const aligned = linksOf(hypothesis, side, index).length ? "" : "unaligned";
  return side === "target" ? `${aligned} ${sureness(hypothesis.wordProbabilities[index])}` : aligned;
}

function glossOf({ source, hypothesis }, index) {
  const links = linksOf(hypothesis, "target", index).sort((a, b) => a.index - b.index);
  return links.map((link) => source.words[link.index].text).join(" ") || say("none");
}

function legend() {
  const key = (name) => h("span", { class: "key" }, h("span", { class: `word ${name}` }, "abc"), ` ${say(name)}`);
  return h(
    "p",
    { class: "help legend" },
    ["sure", "fair", "unsure"].map(key),
    h("span", { class: "key" }, say("unalignedKey")),
    h("span", { class: "key" }, say("keys")),
  );
}

/** What speaks against the translation, in the words of the interface; the service's own where this page has none. */
function doubts(suspicions) {
  if (!suspicions.length) return [];
  const reasons = suspicions.map(({ kind, value, message }) =>
    knows(kind) ? say(kind, { value: percent(value) }) : message,
  );
  return [h("p", { class: "doubt" }, say("doubt", { reasons: reasons.join(say("doubts")) }))];
}

function noteList(notes) {
  if (!notes.length) return [];
  const item = (note) =>
    h("li", {}, note.number ? h("sup", { class: "note-mark" }, String(note.number)) : null, ` ${note.text}`);
  return [h("div", { class: "notes" }, h("h3", {}, say("warnings")), h("ul", {}, notes.map(item)))];
}

/** A word, its links and its probability, for those who listen. */
export function spokenWord(explanation, side, index) {
  const { source, hypothesis } = explanation;
  const [here, there] = side === "source" ? [source, hypothesis.text] : [hypothesis.text, source];
  const links = linksOf(hypothesis, side, index).map(
    (link) => `${there.words[link.index].text} ${percent(link.weight)}`,
  );
  const parts = [
    here.words[index].text,
    links.length ? say("spokenLinked", { words: links.join(", ") }) : say("spokenUnaligned"),
  ];
  const probability = hypothesis.wordProbabilities[index];
  if (side === "target" && probability !== undefined)
    parts.push(say("spokenProbability", { value: percent(probability) }));
  return parts.join("; ");
}

/** Show what the word at `place` is tied to: figures above the words of the other side, a tint as strong as the weight. */
export function light(section, explanation, place) {
  section.querySelector(".readout").textContent = place ? spokenWord(explanation, place.side, place.index) : "";
  const weights = place ? weightsOf(explanation.hypothesis, place.side, place.index) : [];
  const linked = new Set(
    place ? linksOf(explanation.hypothesis, place.side, place.index).map((link) => link.index) : [],
  );
  for (const word of section.querySelectorAll(".line .word")) {
    const index = Number(word.dataset.index);
    const other = place && word.dataset.side !== place.side;
    const weight = other ? (weights[index] ?? 0) : 0;
    word.style.setProperty("--weight", weight.toFixed(3));
    word.classList.toggle("linked", Boolean(other && linked.has(index)));
    word.classList.toggle("chosen", Boolean(place && !other && index === place.index));
    word.previousSibling.textContent = weight >= SHOWN_FROM ? percent(weight).replace("\u00a0", "") : "";
  }
}

/** Where an arrow key leads from a word: along the line, or over to the word it is most tied to. */
export function neighborOf(explanation, { side, index }, key, rightToLeft) {
  const count = (side === "source" ? explanation.source : explanation.hypothesis.text).words.length;
  const step = { ArrowRight: rightToLeft ? -1 : 1, ArrowLeft: rightToLeft ? 1 : -1 }[key];
  if (step) return { side, index: Math.min(Math.max(index + step, 0), count - 1) };
  if (key === "Home") return { side, index: 0 };
  if (key === "End") return { side, index: count - 1 };
  const crosses = (key === "ArrowDown" && side === "source") || (key === "ArrowUp" && side === "target");
  return crosses ? across(explanation, side, index) : null;
}

function across({ source, hypothesis }, side, index) {
  const other = side === "source" ? "target" : "source";
  const count = (other === "source" ? source : hypothesis.text).words.length;
  if (!count) return null;
  const weights = weightsOf(hypothesis, side, index).slice(0, count);
  return { side: other, index: weights.indexOf(Math.max(...weights)) };
}

/** Two translations, one above the other: changed words marked, a figure under each word of the first. */
export function drawComparison(before, after, { changedBefore, changedAfter, figures }) {
  const under = (index) => ({
    classes: changedBefore.includes(index) ? "changed" : "",
    gloss: figure(figures[index], 2, true),
  });
  const plain = (index) => ({ classes: changedAfter.includes(index) ? "changed" : "" });
  return [
    h("h3", {}, say("before")),
    line("before", before.text, under, say("before")),
    h("h3", {}, say("after")),
    line("after", after.text, plain, say("after")),
  ];
}
