/** What the page shows, and what it remembers of its reader. */

import { UNCHANGED } from "./what-if.js";

export const $ = (id) => document.getElementById(id);

/** The explanation that a page in one file holds; null where there is a service to ask. */
export const embedded = $("explanation");

export const state = {
  models: [],
  asked: {}, // the request that `explanation` answers
  retry: null, // what to do again after a failure
  explanation: null,
  notes: [],
  place: null, // the chosen word, {side, index}
  view: { show: "weights", unit: "words", color: false, centered: true },
  cursor: [0, 0], // the cell that was read out last
  matrix: null, // names and values of what is drawn
  drawn: null, // the chart of it
  change: UNCHANGED,
  actions: null, // what can be asked of the service about a word, and in the what-if panel
  working: 0, // calls that run
  answers: {}, // what the service said of the chosen word and of the change: whatIf, group, alternatives, contrast
};

/** What the reader chose last time; a browser that keeps nothing is no reason to fail. */
export function preference(name, value) {
  try {
    if (value !== undefined) localStorage.setItem(`interlinear.${name}`, value);
    return localStorage.getItem(`interlinear.${name}`);
  } catch {
    return null;
  }
}
