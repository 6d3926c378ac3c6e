/** The link: what is shown, written into the part of the address that never leaves the browser. */

import { TERMS } from "./reading.js";
import { state } from "./state.js";

/** Write what is shown into the part of the address that never leaves the browser. */
export function keepLink(isNew = false) {
  const { show, unit, color } = state.view;
  const { text, target, model } = state.asked;
  const place = state.place ? `${state.place.side}.${state.place.index}` : "";
  const change = state.answers.whatIf ? JSON.stringify(state.change) : "";
  const all = {
    text,
    target,
    model,
    show,
    unit,
    color: color ? "1" : "",
    raw: state.view.centered ? "" : "1",
    word: place,
    "what-if": change,
  };
  const kept = Object.entries(all).filter(([, value]) => value !== undefined && value !== "");
  history[isNew ? "pushState" : "replaceState"](null, "", `#${new URLSearchParams(kept)}`);
}

/**
 * Take the view from the address.
 * @returns what it says of the rest: the question, the chosen word, the what-if
 */
export function readLink() {
  const link = new URLSearchParams(location.hash.slice(1));
  const [side, index] = (link.get("word") ?? "").split(".");
  Object.assign(state.view, {
    show: link.get("show") ?? "weights",
    unit: link.get("unit") === "pieces" ? "pieces" : "words",
  });
  Object.assign(state.view, { color: link.has("color"), centered: !link.has("raw") });
  return {
    text: link.get("text"),
    target: link.get("target"),
    model: link.get("model"),
    place: ["source", "target"].includes(side) && isIndex(Number(index)) ? { side, index: Number(index) } : null,
    change: changeOf(link.get("what-if")),
  };
}

/** A what-if as written in a link; null where there is none, or where it is not one: anybody can write a link. */
function changeOf(written) {
  try {
    const { kept, masked, replaced, given } = JSON.parse(written);
    const isWhole = [
      kept.length > 0 && kept.every((term) => TERMS.includes(term)),
      masked.every(isIndex),
      replaced === null || (isIndex(replaced.word) && typeof replaced.text === "string"),
      given === null || [given.target, given.source].every((index) => index === null || isIndex(index)),
    ].every(Boolean);
    return isWhole ? { kept, masked, replaced, given } : null;
  } catch {
    return null;
  }
}

const isIndex = (value) => Number.isInteger(value) && value >= 0;
