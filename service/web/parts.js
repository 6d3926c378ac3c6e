/** The attention taken apart: nine stamps, nine shares, the curves of the temporal component. */

import { curves, h, refill, stamp } from "./drawing.js";
import {
  byGroup,
  byWords,
  centered,
  COMPONENTS,
  GROUPS,
  pieceMatrix,
  rowsOfWord,
  rowsOf,
  sharesOfAll,
  sharesOver,
  termsOf,
} from "./reading.js";
import { signedBar } from "./word.js";
import { figure, percent, say } from "./text.js";

/** A term in the words of the interface. */
export function termName(term) {
  const [encoder, decoder] = term.split(".");
  return say("termLabel", { encoder: say(encoder), decoder: say(decoder) });
}

/** The largest absolute value of several matrices, so that all are drawn on one scale. */
export function boundOf(matrices) {
  return matrices.flat(2).reduce((most, value) => Math.max(most, Math.abs(value)), 1e-6);
}

/** Draw the nine terms as stamps to choose from; the one that is shown large is pressed. */
export function drawNine(section, explanation, view, choose) {
  if (!explanation.terms.size) return section.replaceChildren();
  const shares = sharesOfAll(explanation);
  const stamped = new Map(
    [...explanation.terms.keys()].map((term) => [
      term,
      centered(byWords(explanation, pieceMatrix(explanation, `term.${term}`)).values),
    ]),
  );
  const bound = boundOf([...stamped.values()]);
  const head = (name) => h("span", { class: "axis" }, say(name), h("small", {}, say(`${name}Technical`)));
  const cell = (encoder, decoder) =>
    nineCell(`${encoder}.${decoder}`, stamp(stamped.get(`${encoder}.${decoder}`), bound, view.color), {
      shares,
      view,
      choose,
    });
  const rows = COMPONENTS.map((encoder) => [head(encoder), ...COMPONENTS.map((decoder) => cell(encoder, decoder))]);
  refill(
    section,
    h("h2", { id: "nine-title" }, say("nine")),
    h("p", { class: "help" }, say("nineHelp")),
    h("div", { class: "nine" }, h("span"), COMPONENTS.map(head), rows.flat()),
  );
}

function nineCell(term, picture, { shares, view, choose }) {
  const pressed = view.show === `term.${term}`;
  const share = percent(shares.get(term), true);
  return h(
    "button",
    {
      type: "button",
      "data-term": term,
      "aria-pressed": String(pressed),
      "aria-label": `${termName(term)}: ${share}`,
      click: () => choose(pressed ? "weights" : `term.${term}`),
    },
    picture,
    h("span", { class: "told" }, share),
  );
}

/** Draw the signed shares of the nine terms, grouped, for the chosen word and for the sentence. */
export function drawShares(section, explanation, place) {
  if (!explanation.terms.size) return section.replaceChildren();
  const word = place?.side === "target" ? place.index : null;
  const shares = [sharesOfAll(explanation)];
  const titles = [say("wholeSentence")];
  const ofWord = word === null ? null : sharesOver(explanation, rowsOfWord(explanation, word));
  if (ofWord)
    (shares.unshift(ofWord), titles.unshift(say("thisWord", { word: explanation.hypothesis.text.words[word].text })));
  const bound = Math.max(
    ...shares.flatMap((each) => [...each.values(), ...Object.values(byGroup(each))].map(Math.abs)),
  );
  section.replaceChildren(
    h("h2", { id: "shares-title" }, say("shares")),
    h("p", { class: "help" }, say("sharesHelp")),
    h(
      "table",
      { class: "shares" },
      h(
        "thead",
        {},
        h(
          "tr",
          {},
          [say("term"), ...titles].map((title, index) => h("th", { scope: "col", colspan: index ? 2 : 1 }, title)),
        ),
      ),
      GROUPS.map((group) => groupRows(group, shares, bound)),
    ),
  );
}

function groupRows(group, shares, bound) {
  const cells = (values) =>
    values.flatMap((value) => [h("td", { class: "told" }, percent(value, true)), h("td", {}, signedBar(value, bound))]);
  const total = cells(shares.map((each) => byGroup(each)[group]));
  const terms = termsOf(group);
  const single = (term) =>
    h(
      "tr",
      { "data-term": term },
      h("th", { scope: "row" }, termName(term)),
      cells(shares.map((each) => each.get(term))),
    );
  return h(
    "tbody",
    { "data-group": group },
    h("tr", { class: "group" }, h("th", { scope: "rowgroup" }, say(group)), total),
    terms.map(single),
  );
}

/** Draw the temporal component of both sides as curves, the chosen word's positions pointed at. */
export function drawComponents(section, explanation, place) {
  const sides = ["source", "target"].filter((side) => explanation.sides[side]?.temporalCurve);
  if (!sides.length) return section.replaceChildren();
  section.replaceChildren(
    h("h2", { id: "components-title" }, say("components")),
    h("p", { class: "help" }, say("componentsHelp")),
    h(
      "div",
      { class: "columns even" },
      sides.map((side) => sideCurves(explanation, side, place)),
    ),
  );
}

function sideCurves(explanation, side, place) {
  const components = explanation.sides[side];
  const values = rowsOf(components.temporalCurve);
  const text = side === "source" ? explanation.source : explanation.hypothesis.text;
  const marked = place?.side === side ? text.words[place.index].pieces : [];
  const name = say(side === "source" ? "curveSource" : "curveTarget");
  const axes = values[0].map((_, axis) => say("axis", { number: axis + 1 }));
  const norms = marked.map((piece) =>
    h("p", { class: "help" }, say("norms", { piece: text.pieces[piece].text, ...lengths(components, piece) })),
  );
  const figureElement = curves(values, axes, marked, say("curveLabel", { side: name, count: values.length }));
  return h("figure", { "data-side": side }, h("figcaption", {}, name), figureElement, norms);
}

function lengths({ temporalNorms, inputDrivenNorms, deltaNorms }, position) {
  const at = (norms) => figure(norms?.[position] ?? 0);
  return { temporal: at(temporalNorms), input_driven: at(inputDrivenNorms), delta: at(deltaNorms) };
}
