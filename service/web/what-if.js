/** The what-if panel: a form that says what to change, and what became of the translation. */

import { drawComparison } from "./edition.js";
import { h, refill } from "./drawing.js";
import { changeOfWord, COMPONENTS, GROUPS, TERMS, termKey, termsWithout } from "./reading.js";
import { termName } from "./parts.js";
import { figure, percent, say, times } from "./text.js";

/** Nothing changed. `given` is null or {target: word or null for every, source: word or null for flat}. */
export const UNCHANGED = { kept: TERMS, masked: [], replaced: null, given: null };

const without = (component) => TERMS.filter((term) => !term.split(".").includes(component));
const PRESETS = {
  presetAll: TERMS,
  presetPosition: ["temporal.temporal"],
  presetMeaning: ["input_driven.input_driven"],
  presetNoPosition: without("temporal"),
  presetNoMeaning: without("input_driven"),
  ...Object.fromEntries(GROUPS.map((group) => [group, termsWithout(group)])),
};
const presetName = (name) => (GROUPS.includes(name) ? say("leaveOut", { group: say(name) }) : say(name));

/** A change as an Intervention of the wire. */
export function interventionOf(change, { text }) {
  const wire = {};
  if (change.kept.length < TERMS.length) wire.keptTerms = change.kept.map(termKey);
  if (change.masked.length) wire.maskedSourceWords = change.masked;
  if (change.replaced) wire.replacedSourceWords = [{ sourceWord: change.replaced.word, text: change.replaced.text }];
  if (change.given) wire.givenAttention = rowsGiven(change.given, text);
  return wire;
}

function rowsGiven({ target, source }, text) {
  const attention = source === null ? { flat: true } : { sourceWord: source };
  if (target === null) return [attention];
  return (text.words[target]?.pieces ?? []).map((piece) => ({ targetToken: piece, ...attention }));
}

/** Draw the form for `change` and, where there is one, the answer. `act` has edit, type, run, reset and show. */
export function drawWhatIf(section, explanation, { change, whatIf }, act) {
  const nothingKept = !change.kept.length;
  refill(
    section,
    h("h2", { id: "what-if-title" }, say("whatIf")),
    h("p", { class: "help" }, say("whatIfHelp")),
    explanation.forced ? h("p", { class: "help" }, say("whatIfOwn")) : "",
    h(
      "form",
      { submit: (event) => (event.preventDefault(), act.run()) },
      h(
        "div",
        { class: "changes" },
        keep(change, act.edit),
        hide(change, explanation, act.edit),
        replace(change, explanation, act),
        give(change, explanation, act.edit),
      ),
      h(
        "p",
        { class: "actions" },
        h("button", { type: "submit", id: "run-what-if", disabled: nothingKept }, say("run")),
        " ",
        h("button", { type: "button", class: "plain", id: "reset-what-if", click: act.reset }, say("reset")),
        nothingKept ? h("span", { class: "help" }, say("keepSome")) : null,
      ),
    ),
    h("div", { id: "what-if-result", role: "status" }, whatIf ? result(whatIf, act.show) : null),
  );
}

function fieldset(name, ...children) {
  return h("fieldset", {}, h("legend", {}, say(name)), children);
}

function keep({ kept }, edit) {
  const same = (terms) => terms.length === kept.length && terms.every((term) => kept.includes(term));
  const preset = ([name, terms]) =>
    h(
      "button",
      {
        type: "button",
        class: "chip",
        "data-preset": name,
        "aria-pressed": String(same(terms)),
        click: () => edit({ kept: terms }),
      },
      presetName(name),
    );
  const box = (term) => {
    const toggle = (event) =>
      edit({ kept: TERMS.filter((each) => (each === term ? event.target.checked : kept.includes(each))) });
    return h("input", {
      type: "checkbox",
      "data-keep": term,
      checked: kept.includes(term),
      "aria-label": termName(term),
      change: toggle,
    });
  };
  const rows = COMPONENTS.map((encoder) =>
    [h("span", {}, say(encoder)), COMPONENTS.map((decoder) => box(`${encoder}.${decoder}`))].flat(),
  );
  return fieldset(
    "keep",
    h("p", { class: "chips" }, Object.entries(PRESETS).map(preset)),
    h(
      "div",
      { class: "keep" },
      h("span"),
      COMPONENTS.map((name) => h("span", {}, say(name))),
      rows.flat(),
    ),
  );
}

function hide({ masked, replaced }, { source }, edit) {
  const toggle = (index) =>
    masked.includes(index) ? masked.filter((each) => each !== index) : [...masked, index].sort((a, b) => a - b);
  const chip = (word, index) =>
    h(
      "button",
      {
        type: "button",
        class: "chip",
        dir: "auto",
        "data-hide": index,
        "aria-pressed": String(masked.includes(index)),
        click: () => edit({ masked: toggle(index) }),
      },
      word.text,
    );
  const help = masked.length && replaced ? h("p", { class: "help" }, say("hideAfterReplace")) : null;
  return fieldset("hide", h("p", { class: "chips" }, source.words.map(chip)), help);
}

function options(pairs, chosen) {
  return pairs.map(([value, name]) => h("option", { value, selected: value === chosen }, name));
}

function replace({ replaced }, { source }, act) {
  const words = [["", say("replaceNone")], ...source.words.map((word, index) => [String(index), word.text])];
  const input = h("input", {
    id: "replacement",
    value: replaced?.text ?? "",
    dir: "auto",
    "aria-label": say("replaceWith"),
    disabled: !replaced,
    input: () => act.type(input.value),
  });
  const chosen = (event) =>
    act.edit({
      replaced: event.target.value === "" ? null : { word: Number(event.target.value), text: input.value },
    });
  const select = h(
    "select",
    { id: "replaced", "aria-label": say("replace"), change: chosen },
    options(words, String(replaced?.word ?? "")),
  );
  return fieldset("replace", select, ` ${say("replaceWith")} `, input);
}

function give({ given }, { source, hypothesis, forced }, edit) {
  const words = forced
    ? []
    : hypothesis.text.words.map((word, index) => [String(index), say("giveWord", { word: word.text })]);
  const targets = [["none", say("giveNone")], ["every", say("giveEvery")], ...words];
  const sources = [
    ["flat", say("giveFlat")],
    ...source.words.map((word, index) => [String(index), say("giveSource", { word: word.text })]),
  ];
  const target = (event) => {
    const { value } = event.target;
    edit({
      given:
        value === "none" ? null : { target: value === "every" ? null : Number(value), source: given?.source ?? null },
    });
  };
  const from = (event) =>
    edit({ given: { ...given, source: event.target.value === "flat" ? null : Number(event.target.value) } });
  const chosen = given ? String(given.target ?? "every") : "none";
  return fieldset(
    "give",
    h("select", { id: "give-target", "aria-label": say("give"), change: target }, options(targets, chosen)),
    " ",
    h(
      "select",
      { id: "give-source", "aria-label": say("drawnFrom"), change: from, disabled: !given },
      options(sources, String(given?.source ?? "flat")),
    ),
  );
}

function result(whatIf, show) {
  const { before, after, changedBefore, changedAfter, logProbabilityChange: change, distance } = whatIf;
  const words = before.text.words;
  const changed =
    before.text.text === after.text.text
      ? say("resultSame")
      : say("resultWords", { count: changedBefore.length, total: words.length });
  const name = Math.abs(change) < 0.005 ? "resultEqual" : change < 0 ? "resultLess" : "resultMore";
  const belief = say(name, { times: times(change), nats: figure(change) });
  const figures = words.map((_, word) => changeOfWord(whatIf, word));
  return [
    h("p", { class: "verdict" }, [changed, belief, say("resultDistance", { distance: percent(distance) })].join(" ")),
    ...drawComparison(before, after, { changedBefore, changedAfter, figures }),
    h(
      "p",
      { class: "help" },
      say("resultKey"),
      " ",
      h("button", { type: "button", class: "plain", id: "show-what-if", click: show }, say("showWhatIf")),
    ),
  ];
}
