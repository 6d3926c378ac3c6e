/** What is asked of the service, and where the answers go. */

import { keepLink, readLink } from "./link.js";
import { drawMatrix, drawShowOptions, look } from "./matrix.js";
import { announce, draw, drawCard, drawFailure, drawQuestion, drawWhatIfPanel, show } from "./page.js";
import { readWhatIf, termsWithout } from "./reading.js";
import { call, CallFailed, stop } from "./service.js";
import { $, state } from "./state.js";
import { say } from "./text.js";
import { interventionOf, UNCHANGED } from "./what-if.js";

const PACKED = { matrixEncoding: "MATRIX_ENCODING_PACKED_FLOAT32" };
const ALTERNATIVES = 6;

/** Call the service; null where the call was stopped, or failed, which is told of. */
async function ask(channel, path, request) {
  $("failure").hidden = true;
  busy(1);
  try {
    return await call(channel, path, request);
  } catch (error) {
    if (!(error instanceof CallFailed)) throw error;
    drawFailure(error);
    return null;
  } finally {
    busy(-1);
  }
}

function busy(more) {
  state.working += more;
  document.body.setAttribute("aria-busy", String(state.working > 0));
  drawQuestion();
}

/** Ask what can be asked. */
export async function loadModels() {
  const reply = await ask("models", "models");
  state.models = reply?.models ?? [];
}

/** Ask for an explanation and show it. */
export async function explain(request, { place = null, remember = true } = {}) {
  state.retry = () => explain(request, { place, remember });
  for (const channel of ["what-if", "alternatives", "contrast"]) stop(channel);
  const reply = await ask("explain", "explain", { ...request, ...PACKED });
  if (!reply) return;
  Object.assign(state, { asked: request, change: UNCHANGED, answers: {} });
  show(reply, place);
  if (remember) keepLink(true);
  announce(say("spokenTranslated", { text: state.explanation.hypothesis.text.text }));
}

/** Ask for what the form says. */
export function submit() {
  const request = { text: $("text").value, model: $("model").value };
  if ($("own").open) request.target = $("target").value;
  return explain(request);
}

/** Show again what the address says. */
export async function followLink() {
  const { text, target, model, place, change } = readLink();
  if (!text) return;
  const wanted = state.view.show;
  $("text").value = text;
  $("own").open = target !== null;
  $("target").value = target ?? "";
  if (state.models.some((each) => each.name === model)) $("model").value = model;
  const request = { text, model: $("model").value, ...(target === null ? {} : { target }) };
  await explain(request, { place, remember: false });
  if (!state.explanation || !change) return;
  state.change = change;
  await runWhatIf();
  if (wanted === "what-if" && state.answers.whatIf) look({ show: wanted });
}

async function runWhatIf(group = null) {
  state.retry = () => runWhatIf(group);
  const { text, model } = state.asked;
  const intervention = interventionOf(state.change, state.explanation.hypothesis);
  const reply = await ask("what-if", "what-if", { text, model, intervention, ...PACKED });
  if (!reply) return;
  Object.assign(state.answers, { whatIf: readWhatIf(reply), group });
  keepLink();
  drawCard();
  drawWhatIfPanel();
  drawShowOptions();
  if (state.view.show === "what-if") drawMatrix();
}

/** What can be asked of a word. */
export const wordActions = {
  check(group) {
    state.change = { ...UNCHANGED, kept: termsWithout(group) };
    runWhatIf(group);
  },
  hide(index) {
    state.change = { ...UNCHANGED, masked: [index] };
    $("what-if").scrollIntoView({ block: "nearest" });
    runWhatIf();
  },
  async alternatives(index) {
    state.retry = () => wordActions.alternatives(index);
    const request = { ...state.asked, targetWord: index, limit: ALTERNATIVES };
    const reply = await ask("alternatives", "alternatives", request);
    if (!reply) return;
    Object.assign(state.answers, { alternatives: reply.alternatives ?? [], contrast: null });
    drawCard();
  },
  async contrast(index, alternative) {
    state.retry = () => wordActions.contrast(index, alternative);
    const reply = await ask("contrast", "contrast", { ...state.asked, targetWord: index, alternative });
    if (!reply) return;
    state.answers.contrast = reply;
    drawCard();
  },
  goOn(target) {
    $("own").open = true;
    $("target").value = target;
    $("target").focus();
    submit();
  },
};

/** What can be done in the what-if panel. */
export const whatIfActions = {
  edit(more) {
    state.change = { ...state.change, ...more };
    drawWhatIfPanel();
  },
  /** Take a replacement as it is typed; drawing anew what is typed in would lose the caret, and Enter. */
  type(text) {
    state.change = { ...state.change, replaced: { ...state.change.replaced, text } };
  },
  run: () => runWhatIf(),
  reset() {
    state.change = UNCHANGED;
    Object.assign(state.answers, { whatIf: null, group: null });
    if (state.view.show === "what-if") state.view.show = "weights";
    keepLink();
    draw();
  },
  show() {
    look({ show: "what-if" });
    $("matrix").scrollIntoView({ block: "start" });
  },
};
