/** The explorer: what its reader does, and how it begins. */

import { followLink, loadModels, submit, whatIfActions, wordActions } from "./asking.js";
import { h } from "./drawing.js";
import { light, neighborOf, spokenWord } from "./edition.js";
import { keepLink, readLink } from "./link.js";
import { drawMatrix, listenToMatrix } from "./matrix.js";
import { announce, draw, drawPair, drawPlace, drawQuestion, drawStatic, show } from "./page.js";
import { stop } from "./service.js";
import { $, embedded, preference, state } from "./state.js";
import { LANGUAGES, say, speak, spoken } from "./text.js";
import { verdictText } from "./word.js";

const WORD = ".word[data-side]";

const placeOf = (element) => ({ side: element.dataset.side, index: Number(element.dataset.index) });

function elementOf({ side, index }) {
  return $("edition").querySelector(`.word[data-side="${side}"][data-index="${index}"]`);
}

/** Choose the word at `place`. */
function choose(place) {
  if (place.side === state.place?.side && place.index === state.place.index) return;
  state.place = place;
  Object.assign(state.answers, { alternatives: null, contrast: null, group: null });
  drawPlace();
  keepLink();
}

function wordFocused(event) {
  const word = event.target.closest(WORD);
  if (!word) return;
  for (const each of $("edition").querySelectorAll(WORD)) each.tabIndex = each === word ? 0 : -1;
  choose(placeOf(word));
  const { side, index } = state.place;
  const explained = side === "target" && state.explanation.terms.size;
  const verdict = explained ? verdictText(state.explanation, index).text : "";
  announce(`${spokenWord(state.explanation, side, index)}. ${verdict}`);
}

function wordKeys(event) {
  const word = event.target.closest(WORD);
  if (!word || event.ctrlKey || event.metaKey || event.altKey) return;
  const rightToLeft = getComputedStyle(word.closest(".line")).direction === "rtl";
  const acts = event.key === "Enter" || event.key === " ";
  const next = acts ? null : neighborOf(state.explanation, placeOf(word), event.key, rightToLeft);
  if (!acts && !next) return;
  event.preventDefault();
  if (acts) wordActed(word);
  else elementOf(next).focus();
}

function wordActed(word) {
  word.focus();
  const { side, index } = placeOf(word);
  if (side === "target") state.actions?.word.alternatives(index);
}

function listenToWords() {
  const edition = $("edition");
  const wordOf = (event) => event.target.closest(WORD);
  edition.addEventListener("focusin", wordFocused);
  edition.addEventListener("keydown", wordKeys);
  edition.addEventListener("click", (event) => wordOf(event) && wordActed(wordOf(event)));
  edition.addEventListener("pointerover", (event) => {
    light(edition, state.explanation, wordOf(event) ? placeOf(wordOf(event)) : state.place);
  });
  edition.addEventListener("pointerleave", () => light(edition, state.explanation, state.place));
}

function setTheme(theme) {
  document.documentElement.dataset.theme = theme;
  $("theme").value = theme;
}

function listenToPreferences() {
  $("language").addEventListener("click", () => {
    speak(LANGUAGES.find((each) => each !== spoken()));
    preference("language", spoken());
    draw();
  });
  $("theme").addEventListener("change", () => {
    setTheme($("theme").value);
    preference("theme", $("theme").value);
  });
  addEventListener("resize", () => state.explanation && drawMatrix());
}

function listenToForm() {
  $("ask").addEventListener("submit", (event) => {
    event.preventDefault();
    submit();
  });
  $("ask").addEventListener("keydown", (event) => {
    if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) submit();
  });
  $("ask").addEventListener("input", () => {
    stop("explain");
    drawQuestion();
  });
  $("own").addEventListener("toggle", drawQuestion);
  $("own-again").addEventListener("click", () => {
    $("own").open = false;
    submit();
  });
  $("model").addEventListener("change", drawPair);
  $("link").addEventListener("click", async () => {
    await navigator.clipboard.writeText(location.href);
    $("link-told").textContent = say("linkCopied");
  });
  addEventListener("popstate", followLink);
}

function beginAlone() {
  for (const element of document.querySelectorAll("[data-asks]")) element.hidden = true;
  const { place } = readLink();
  show(JSON.parse(embedded.textContent), place);
}

async function begin() {
  state.retry = begin;
  await loadModels();
  const option = ({ name, version }) => h("option", { value: name }, `${name} ${version ?? ""}`);
  $("model").replaceChildren(...state.models.map(option));
  draw();
  if (state.models.length) await followLink();
}

speak(preference("language") ?? (navigator.language.startsWith("zh") ? "zh" : "en"));
setTheme(preference("theme") ?? "auto");
drawStatic();
listenToPreferences();
listenToWords();
listenToMatrix((word) => choose({ side: "target", index: word }));
if (embedded) beginAlone();
else {
  state.actions = { word: wordActions, whatIf: whatIfActions };
  listenToForm();
  begin();
}
