/** The report: sorts its table, and opens a sentence into its interlinear edition and its attention matrix. */

import { chart, h, sheet } from "./drawing.js";
import { drawEdition, light, neighborOf } from "./edition.js";
import { LANGUAGES, say, sayAll, speak, spoken, TEXT } from "./text.js";

const MOST = 255; // what a byte of weight 1 holds

Object.assign(TEXT.en, {
  keys: "Arrow keys walk through words and across.",
  reportKeys: "A column’s name sorts by it, what to worry about first. The number of a line opens it; arrow keys then walk from line to line.",
  openLine: "Line {line}: show words and attention",
  sortBy: "Sort by {column}",
  matrixHelp: "Across: source. Down: translation. Black is 0, white is 1; each row sums to 1.",
});
Object.assign(TEXT.zh, {
  keys: "方向键在词间和两行之间移动。",
  reportTagline: "逐句查看模型有多大把握",
  countExplained: "已解释的句子",
  countRefused: "被拒绝的行",
  columnLine: "行",
  columnPair: "原文与译文",
  confidence: "把握",
  weakest: "最弱的词",
  uncovered: "未覆盖的原文",
  deltaShare: "语境份额",
  repetition: "重复",
  entropy: "对齐熵",
  median: "中位数",
  refusedTitle: "被拒绝的行",
  refusedReason: "原因",
  meaningTitle: "各列的含义",
  confidenceMeaning: "各词元概率的几何平均（含句末）：exp(对数概率 / 词元数)。",
  weakestMeaning: "译文中模型最没有把握的词的概率（已知其前各词）。",
  uncoveredMeaning: "从译文所有词合计得到不足 0.1 注意力的原文词所占的比例：可能漏译之处。",
  deltaShareMeaning: "注意力的形状中，任一侧涉及位置与词都解释不了的部分所占的份额；句子与拟合分量所用文本不相似时偏高。份额有正负，可超出 0 至 100 %。",
  repetitionMeaning: "译文中此前已出现过的相邻词对所占的比例（不分大小写）：循环。",
  entropyMeaning: "各词注意力的平均熵（奈特）：每个词只看一个原文词时为 0，目光越分散越大。",
  reportKeys: "点列名即按该列排序，最值得担心的在前。点行号可展开该行；方向键在各行之间移动。",
  openLine: "第 {line} 行：显示各词与注意力",
  sortBy: "按{column}排序",
  matrixHelp: "横向：原文。纵向：译文。黑为 0，白为 1；每行之和为 1。",
});

const table = document.getElementById("sentences");
const body = table.tBodies[0];
const openers = () => [...body.querySelectorAll("button.open-line")];
const rowOf = (element) => element.closest("tr[data-line]");

/** The page itself is its English edition. */
function learnEnglish() {
  for (const element of document.querySelectorAll("[data-say]")) TEXT.en[element.dataset.say] ??= element.textContent;
}

/** What `record` in service/report.py wrote, as an explanation that the edition can draw. */
function explanationOf(row) {
  const record = JSON.parse(row.querySelector("script").textContent);
  const [source, target] = [record.source, record.target].map(({ text, places }) => ({ text, words: wordsAt(text, places) }));
  const bytes = Uint8Array.from(atob(record.weights), (character) => character.charCodeAt(0));
  const columns = source.words.length + 1;
  const wordWeights = Array.from({ length: bytes.length / columns }, (_, index) =>
    Array.from(bytes.subarray(index * columns, (index + 1) * columns), (byte) => byte / MOST),
  );
  const links = record.links.map(([targetWord, sourceWord, weight]) => ({ target: targetWord, source: sourceWord, weight }));
  return { source, forced: record.forced, hypothesis: { text: target, wordProbabilities: record.probabilities, wordWeights, links } };
}

const wordsAt = (text, places) => places.map(([start, end]) => ({ text: text.slice(start, end), start, end }));

/** Draw the attention between words below the edition. */
function drawMatrix({ source, hypothesis }) {
  const name = (word) => word.text;
  const rows = [...hypothesis.text.words.map(name), say("end")].slice(0, hypothesis.wordWeights.length);
  const columns = [...source.words.map(name), say("end")];
  const drawn = chart({ rows, columns, values: hypothesis.wordWeights, signed: false });
  const { corner, head, side, body: cells, scale } = sheet(drawn);
  return [h("div", { class: "sheet" }, corner, head, side, cells), h("div", {}, scale), h("p", { class: "help" }, say("matrixHelp"))];
}

let shown = null; // {row, panel, explanation}

function close() {
  if (!shown) return;
  shown.panel.remove();
  shown.row.classList.remove("open");
  shown.row.querySelector("button").setAttribute("aria-expanded", "false");
  shown = null;
}

function open(row) {
  close();
  const explanation = explanationOf(row);
  const edition = h("section", { id: "edition", "aria-labelledby": "edition-title" });
  drawEdition(edition, explanation, []);
  const panel = h("tr", { class: "shown" }, h("td", { colspan: table.tHead.rows[0].cells.length }, edition, drawMatrix(explanation)));
  row.after(panel);
  row.classList.add("open");
  row.querySelector("button").setAttribute("aria-expanded", "true");
  shown = { row, panel, explanation };
  walkable(edition, explanation);
}

/** Words light up what they are tied to, under the pointer and on the way of the arrow keys. */
function walkable(edition, explanation) {
  const placeOf = (word) => ({ side: word.dataset.side, index: Number(word.dataset.index) });
  const wordUnder = (event) => event.target.closest(".word[data-side]");
  const show = (event) => wordUnder(event) && light(edition, explanation, placeOf(wordUnder(event)));
  edition.addEventListener("pointerover", show);
  edition.addEventListener("focusin", show);
  edition.addEventListener("keydown", (event) => {
    const word = wordUnder(event);
    if (!word) return;
    const rightToLeft = getComputedStyle(word.closest(".line")).direction === "rtl";
    const next = neighborOf(explanation, placeOf(word), event.key, rightToLeft);
    if (!next) return;
    event.preventDefault();
    const found = edition.querySelector(`.word[data-side="${next.side}"][data-index="${next.index}"]`);
    word.setAttribute("tabindex", "-1");
    found?.setAttribute("tabindex", "0");
    found?.focus();
  });
}

function toggle(row) {
  if (shown?.row === row) close();
  else open(row);
}

/** One line at a time is in the tab order, as in a list box: thousands of stops would be no order. */
function stopAt(opener) {
  for (const each of body.querySelectorAll('button.open-line[tabindex="0"]')) each.setAttribute("tabindex", "-1");
  opener?.setAttribute("tabindex", "0");
}

function walk(event) {
  const here = event.target.closest("button.open-line");
  if (!here) return;
  const all = openers();
  const at = all.indexOf(here);
  const next = { ArrowDown: all[at + 1], ArrowUp: all[at - 1], Home: all[0], End: all.at(-1) }[event.key];
  if (!next) return;
  event.preventDefault();
  stopAt(next);
  next.focus();
  if (shown) open(rowOf(next));
}

/** Sort by a column, what to worry about first; once more turns it round. */
function sortBy(heading) {
  const { cellIndex } = heading;
  const first = heading.dataset.worst === "low" ? "ascending" : "descending";
  const other = first === "ascending" ? "descending" : "ascending";
  const order = heading.getAttribute("aria-sort") === first ? other : first;
  const value = (row) => Number(row.cells[cellIndex].dataset.value);
  const sign = order === "ascending" ? 1 : -1;
  close();
  const rows = [...body.rows].sort((a, b) => sign * (value(a) - value(b)));
  body.append(...rows);
  for (const each of table.tHead.rows[0].cells) each.removeAttribute("aria-sort");
  heading.setAttribute("aria-sort", order);
  stopAt(openers()[0]);
}

/** Names of columns become buttons that sort, numbers of lines buttons that open. */
function furnish() {
  for (const heading of table.tHead.querySelectorAll("[data-worst]")) {
    const button = h("button", { type: "button", "data-say": heading.dataset.say, click: () => sortBy(heading) });
    heading.removeAttribute("data-say");
    heading.replaceChildren(button);
  }
  for (const row of body.rows) {
    const cell = row.cells[0];
    cell.replaceChildren(h("button", { type: "button", class: "plain open-line", tabindex: "-1", "aria-expanded": "false" }, row.dataset.line));
  }
  stopAt(openers()[0]);
  table.tHead.querySelector("[data-worst]")?.setAttribute("aria-sort", "ascending");
  body.addEventListener("click", (event) => {
    const row = rowOf(event.target);
    if (!row || (!event.target.closest("button") && String(getSelection()))) return; // selecting text opens nothing
    stopAt(row.querySelector("button.open-line"));
    toggle(row);
  });
  body.addEventListener("keydown", walk);
}

function preference(name, value) {
  try {
    if (value !== undefined) localStorage.setItem(`interlinear.${name}`, value);
    return localStorage.getItem(`interlinear.${name}`);
  } catch {
    return null; // a page from a file may have no storage
  }
}

function sayEverything() {
  sayAll(document);
  document.getElementById("language").textContent = say("language");
  document.getElementById("language").setAttribute("aria-label", say("languageLabel"));
  document.getElementById("keys").textContent = say("reportKeys");
  for (const button of openers()) button.setAttribute("aria-label", say("openLine", { line: rowOf(button).dataset.line }));
  for (const button of table.tHead.querySelectorAll("button")) button.setAttribute("title", say("sortBy", { column: button.textContent }));
  if (shown) open(shown.row);
}

function setTheme(theme) {
  document.documentElement.dataset.theme = theme;
  document.getElementById("theme").value = theme;
}

learnEnglish();
furnish();
speak(preference("language") ?? (navigator.language.startsWith("zh") ? "zh" : "en"));
setTheme(preference("theme") ?? "auto");
sayEverything();
for (const id of ["preferences", "keys"]) document.getElementById(id).hidden = false;
document.getElementById("language").addEventListener("click", () => {
  speak(LANGUAGES.find((each) => each !== spoken()));
  preference("language", spoken());
  sayEverything();
});
document.getElementById("theme").addEventListener("change", (event) => {
  setTheme(event.target.value);
  preference("theme", event.target.value);
});
