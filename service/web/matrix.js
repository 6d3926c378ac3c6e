/** The attention matrix: what can be shown in it, drawing it, reading it cell by cell, taking it home. */

import { chart, h, poster, s, sheet, svgFile, toCanvas } from "./drawing.js";
import { keepLink } from "./link.js";
import { boundOf, drawNine, termName } from "./parts.js";
import { byWords, centered, pharaoh, pieceMatrix, SUBSETS, TERMS, writtenOut } from "./reading.js";
import { $, state } from "./state.js";
import { figure, knows, say } from "./text.js";

const END = "∎";
const PNG_SCALE = 3;
const WIDE_FROM = 28; // columns of a matrix that gets the whole width

/** What the matrix can show. */
export function views() {
  const { terms, hypothesis } = state.explanation;
  const known = hypothesis.posterior.words.length ? ["posterior"] : [];
  const taken = terms.size
    ? ["sum", ...TERMS.map((term) => `term.${term}`), ...[...SUBSETS.keys()].map((name) => `kept:${name}`)]
    : [];
  return ["weights", ...known, "scores", ...taken, ...(state.answers.whatIf ? ["what-if"] : [])];
}

/** The name of a view of the matrix. */
function viewName(show) {
  if (show === "what-if") return say("whatIfView");
  if (show.startsWith("term.")) return termName(show.slice(5));
  if (!show.startsWith("kept:")) return say(show);
  const subset = show.slice(5);
  if (knows(`kept_${subset}`)) return say(`kept_${subset}`);
  const kept = SUBSETS.get(subset);
  return say("kept_without_one", { term: termName(TERMS.find((term) => !kept.includes(term))) });
}

/** Draw the list of what can be shown. */
export function drawShowOptions() {
  const all = views();
  const option = (show) => h("option", { value: show, selected: show === state.view.show }, viewName(show));
  const group = (name, prefix) =>
    h("optgroup", { label: say(name) }, all.filter((show) => show.startsWith(prefix)).map(option));
  const single = all.filter((show) => !/[.:]/.test(show)).map(option);
  $("show").replaceChildren(
    ...single,
    ...(state.explanation.terms.size ? [group("groupTerms", "term."), group("groupRebuilt", "kept:")] : []),
  );
}

/** Names and values of what the matrix shows. */
function shown() {
  const { show, unit } = state.view;
  const whatIf = show === "what-if" ? state.answers.whatIf : null;
  const { source, hypothesis } = whatIf ? { source: whatIf.source, hypothesis: whatIf.after } : state.explanation;
  const given = { "what-if": hypothesis.attention, posterior: hypothesis.posterior }[show];
  const { values, signed } = given ? { values: given[unit], signed: false } : matrixOf(show);
  const names = (text) => text[unit].map((each) => each.text);
  const rows = [...names(hypothesis.text), END].slice(0, values.length);
  return { rows, columns: [...names(source), END], values, signed };
}

/** The values of a view that is made of the scores and their terms. */
function matrixOf(show) {
  const matrix = pieceMatrix(state.explanation, show);
  const { values, signed } = state.view.unit === "pieces" ? matrix : byWords(state.explanation, matrix);
  return { values: signed && state.view.centered ? centered(values) : values, signed };
}

/** The largest value that scores and terms have, so that all are drawn on one scale. */
function signedBound() {
  const compared = views().filter((show) => show === "scores" || show.startsWith("term."));
  return boundOf(compared.map((show) => matrixOf(show).values));
}

/** Draw the matrix, its caption and the nine stamps. */
export function drawMatrix() {
  const { show, unit, color, centered: isCentered } = state.view;
  const matrix = shown();
  const isWide = matrix.columns.length > WIDE_FROM;
  $("reading").classList.toggle("wide", isWide);
  const room = $(isWide ? "answer" : "matrix").clientWidth;
  const drawn = chart({ ...matrix, bound: matrix.signed ? signedBound() : 1, color, room });
  Object.assign(state, { matrix, drawn });
  const { corner, head, side, body, scale } = sheet(drawn);
  $("sheet").replaceChildren(corner, head, side, body);
  const { rows, columns } = matrix;
  const label = say("matrixLabel", { title: viewName(show), rows: rows.length, columns: columns.length });
  $("sheet").setAttribute("aria-label", label);
  $("scale").replaceChildren(scale);
  $("caption").textContent = caption(matrix);
  $("centered-label").hidden = !matrix.signed;
  $("unit").value = unit;
  $("ramp").value = color ? "color" : "gray";
  $("centered").checked = isCentered;
  drawNine($("nine"), state.explanation, state.view, (wanted) => look({ show: wanted }));
  drawCross();
}

function caption({ signed }) {
  const { show, unit, color } = state.view;
  const [low, high] = color ? (signed ? ["blue", "red"] : ["dark", "light"]) : ["black", "white"];
  const ends = { low: say(low), high: say(high), bound: state.drawn.bound.toFixed(1) };
  const distance = show.startsWith("kept:") ? state.explanation.distances.get(show.slice(5)) : undefined;
  return [
    say("captionAxes", { unit: say(unit) }),
    say(signed ? "captionSigned" : "captionWeight", ends),
    show === "posterior" ? say("captionPosterior") : "",
    distance === undefined ? "" : say("captionDistance", { distance: figure(distance, 3) }),
  ].join(" ");
}

/** Mark the row or column of the chosen word. */
export function drawCross() {
  if (!state.drawn || !state.explanation) return;
  const { side, index } = state.place ?? {};
  const text = side === "source" ? state.explanation.source : state.explanation.hypothesis.text;
  const lines =
    !state.place || state.view.show === "what-if"
      ? []
      : state.view.unit === "pieces"
        ? text.words[index].pieces
        : [index];
  const marks = new Set(lines.map((each) => `${side === "source" ? "column" : "row"}-${each}`));
  for (const name of $("sheet").querySelectorAll("[data-mark]"))
    name.classList.toggle("marked", marks.has(name.dataset.mark));
}

/** Read a cell out, the nearest one where there is none. */
function readCell(row, column) {
  const { rows, columns, values, signed } = state.matrix;
  state.cursor = [Math.min(Math.max(row, 0), rows.length - 1), Math.min(Math.max(column, 0), columns.length - 1)];
  const [y, x] = state.cursor;
  const value = signed ? figure(values[y][x]) : values[y][x].toFixed(3);
  const name = (text) => (text === END ? say("end") : text);
  $("readout").textContent = say("cell", { row: name(rows[y]), column: name(columns[x]), value });
  frame(y, x);
}

function frame(y, x) {
  const { cell } = state.drawn;
  const body = $("sheet").querySelector(".body");
  body.querySelector(".frame")?.remove();
  body.append(s("rect", { class: "frame", x: x * cell, y: y * cell, width: cell, height: cell }));
}

function matrixKeys(event) {
  const step = { ArrowUp: [-1, 0], ArrowDown: [1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1] }[event.key];
  if (!step) return;
  event.preventDefault();
  readCell(state.cursor[0] + step[0], state.cursor[1] + step[1]);
  $("sheet").querySelector(".frame").scrollIntoView({ block: "nearest", inline: "nearest" });
}

function cellUnder(event) {
  const body = event.target.closest(".body");
  if (!body) return null;
  const { left, top } = body.getBoundingClientRect();
  const { cell } = state.drawn;
  const place = [Math.floor((event.clientY - top) / cell), Math.floor((event.clientX - left) / cell)];
  return place[1] < state.matrix.columns.length && place[0] < state.matrix.rows.length ? place : null;
}

/** Change how the matrix is shown. */
export function look(change) {
  Object.assign(state.view, change);
  keepLink();
  drawShowOptions();
  drawMatrix();
}

/** Save what is shown, or what it was made of. */
function download(kind) {
  const { reply, hypothesis } = state.explanation;
  const drawing = () => poster(state.drawn, viewName(state.view.show), $("caption").textContent);
  if (kind === "svg") save(svgFile(drawing()), "image/svg+xml", "svg");
  if (kind === "json") save(writtenOut(reply), "application/json", "json");
  if (kind === "pharaoh") save(`${pharaoh(hypothesis)}\n`, "text/plain", "pharaoh.txt");
  if (kind !== "png") return;
  const { shapes, width, height } = drawing();
  toCanvas(shapes, width, height, PNG_SCALE).toBlob((blob) => save(blob, "image/png", "png"));
}

function save(content, type, ending) {
  const address = URL.createObjectURL(new Blob([content], { type }));
  h("a", { href: address, download: `interlinear.${ending}` }).click();
  setTimeout(() => URL.revokeObjectURL(address), 1000);
}

/** Let the matrix be read, changed and saved; `choose` is told of a row that is clicked. */
export function listenToMatrix(choose) {
  $("show").addEventListener("change", () => look({ show: $("show").value }));
  $("unit").addEventListener("change", () => look({ unit: $("unit").value }));
  $("ramp").addEventListener("change", () => look({ color: $("ramp").value === "color" }));
  $("centered").addEventListener("change", () => look({ centered: $("centered").checked }));
  $("sheet").addEventListener("keydown", matrixKeys);
  $("sheet").addEventListener("pointermove", (event) => {
    const place = cellUnder(event);
    if (place) readCell(...place);
  });
  $("sheet").addEventListener("click", (event) => {
    const place = cellUnder(event);
    const word = place && state.view.show !== "what-if" ? wordOfRow(place[0]) : undefined;
    if (word !== undefined) choose(word);
  });
  for (const button of document.querySelectorAll("[data-download]")) {
    button.addEventListener("click", () => download(button.dataset.download));
  }
}

function wordOfRow(row) {
  const { words, pieces } = state.explanation.hypothesis.text;
  const word = state.view.unit === "pieces" ? pieces[row]?.word : row;
  return word < words.length ? word : undefined;
}
