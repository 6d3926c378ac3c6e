/** Draws what `state` holds, part by part. */

import { h } from "./drawing.js";
import { drawEdition, light } from "./edition.js";
import { drawCross, drawMatrix, drawShowOptions, views } from "./matrix.js";
import { drawComponents, drawShares } from "./parts.js";
import { notesOf, readExplanation } from "./reading.js";
import { useKey } from "./service.js";
import { $, embedded, state } from "./state.js";
import { figure, knows, languageName, quoted, say, sayAll } from "./text.js";
import { drawWhatIf } from "./what-if.js";
import { drawWord } from "./word.js";

/** Show a reply of Explain, and the word at `place` if there is one. */
export function show(reply, place) {
  state.explanation = readExplanation(reply);
  state.place = isThere(place) ? place : null;
  state.cursor = [0, 0];
  if (!views().includes(state.view.show)) state.view.show = "weights";
  $("guide").hidden = true;
  $("answer").hidden = false;
  draw();
}

function isThere(place) {
  const { source, hypothesis } = state.explanation;
  return Boolean(place) && place.index < (place.side === "source" ? source : hypothesis.text).words.length;
}

/** Draw everything. */
export function draw() {
  drawStatic();
  if (!state.explanation) return;
  let number = 0;
  state.notes = notesOf(state.explanation).map((note) => {
    return { ...note, number: note.words.length ? ++number : null, text: noteText(note) };
  });
  drawEdition($("edition"), state.explanation, state.notes);
  drawShowOptions();
  drawMatrix();
  drawWhatIfPanel();
  drawAbout();
  drawPlace();
}

/** Draw what is there before anything was asked. */
export function drawStatic() {
  sayAll(document);
  $("language").textContent = say("language");
  $("language").setAttribute("aria-label", say("languageLabel"));
  $("link").title = say("linkHelp");
  $("centered-label").title = say("centeredHelp");
  drawQuestion();
  drawPair();
}

/** Draw what stands by the question: the button that asks, the way back from a given translation, the note on lines. */
export function drawQuestion() {
  $("submit").textContent = say(state.working ? "working" : $("own").open ? "explainTarget" : "translate");
  $("own-again").hidden = !state.explanation?.forced;
  $("lines").hidden = !$("text").value.trim().includes("\n");
}

/** Draw the languages of the model. */
export function drawPair() {
  const model = state.models.find((each) => each.name === $("model").value);
  if (!model) return;
  const [source, target] = [model.sourceLanguageCode, model.targetLanguageCode].map(languageName);
  $("pair").textContent = say("pair", { source, target });
  $("text").placeholder = say("placeholder", { language: source });
}

/** A warning in the words of the interface; the service's own where it is of a kind this page does not know. */
function noteText({ kind, message, side, words, positions, read }) {
  const { source, hypothesis } = state.explanation;
  const key = kind === "UNSEEN_TOKEN" ? `${kind}_${side}` : kind;
  if (!knows(key)) return message;
  const text = side === "source" ? source : hypothesis.text;
  const names = words.map((word) => text.words[word].text);
  if (!positions.length || positions.some((position) => position >= text.pieces.length)) names.push(say("end"));
  return say(key, { words: quoted(names), read: quoted([...new Set(read)]) });
}

/** Draw what depends on the chosen word. */
export function drawPlace() {
  light($("edition"), state.explanation, state.place);
  drawCard();
  drawShares($("shares"), state.explanation, state.place);
  drawComponents($("components"), state.explanation, state.place);
  drawCross();
}

/** Draw the card of the chosen word. */
export function drawCard() {
  drawWord($("word"), state.explanation, state.place, state.answers, state.actions?.word);
}

/** Draw the what-if: the change as it stands, and the answer. */
export function drawWhatIfPanel() {
  if (embedded) return;
  const shown = { change: state.change, whatIf: state.answers.whatIf };
  drawWhatIf($("what-if"), state.explanation, shown, state.actions.whatIf);
}

function drawAbout() {
  const { reply, hypothesis } = state.explanation;
  const { metadata = {}, decomposition: { tables, reconstructionError = 0 } = {} } = reply;
  const { requestId: id, model, modelVersion: version, device, totalSeconds = 0 } = metadata;
  const short = (digest = "") => digest.slice(0, 12);
  const lines = [
    say("aboutTrust"),
    say("aboutModel", { model, version, digest: short(metadata.modelDigest), device }),
    tables && say("aboutTables", { ...tables, digest: short(tables.digest), minimum: tables.minimumCount }),
    tables && say("aboutError", { error: reconstructionError.toExponential(1) }),
    say("aboutTime", { nats: figure(hypothesis.logProbability, 3), id, seconds: figure(totalSeconds, 3) }),
  ];
  const told = lines.filter(Boolean).map((text) => h("p", { class: "help" }, text));
  $("about").replaceChildren(h("h2", { id: "about-title" }, say("about")), ...told);
}

/** Tell those who listen. */
export function announce(text) {
  $("announcement").textContent = text;
}

/** Tell of a failed call in words: what the service said, why, what to do; and offer to do it again. */
export function drawFailure({ message, reason, retrySeconds }) {
  const transient = ["QUEUE_FULL", "DRAINING", "ENGINE_UNREADY", "DEADLINE_PASSED"].includes(reason);
  const generic = say(transient ? "adviceLater" : "advice");
  const known = knows(reason) ? say(reason) : generic;
  const wantsKey = reason.startsWith("CREDENTIALS_");
  $("failure").replaceChildren(
    h("h2", {}, say("errorTitle")),
    h("p", { dir: "auto" }, reason === "UNREACHABLE" ? "" : message, reason ? h("code", {}, reason) : null),
    h("p", {}, retrySeconds ? say("adviceRetry", { seconds: Math.ceil(retrySeconds) }) : known),
    wantsKey ? keyForm() : h("button", { type: "button", click: () => state.retry() }, say("again")),
  );
  $("failure").hidden = false;
  if (wantsKey) $("key").focus();
}

/** Where a reader types a key, for a service that asks for one. */
function keyForm() {
  const field = { id: "key", type: "password", autocomplete: "off", required: true, pattern: "\\s*[!-~]+\\s*" };
  return h(
    "form",
    { class: "actions", submit: useTyped },
    h("label", {}, `${say("key")} `, h("input", field)),
    h("button", { type: "submit" }, say("useKey")),
    h("span", { class: "help" }, say("keyHelp")),
  );
}

async function useTyped(event) {
  event.preventDefault();
  useKey($("key").value);
  await state.retry();
  if ($("failure").hidden) $("text").focus();
}
