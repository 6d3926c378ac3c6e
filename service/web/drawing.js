/**
 * Drawings as lists of shapes, painted as SVG or on a canvas: the same list makes the page, the SVG file and the PNG
 * file (a page that allows itself nothing from elsewhere cannot load an SVG as an image to make a PNG of it).
 */

const SVG = "http://www.w3.org/2000/svg";
const FONT = "Georgia, 'Noto Serif CJK SC', 'Songti SC', serif";
const TURN = -60; // degrees, of the labels over the columns
const RISE = Math.sin(Math.PI / 3);
const LEAN = Math.cos(Math.PI / 3);
const LABEL = 13;
const LONGEST = 150; // px, of a label; longer words are cut
const NUMBERS_FROM = 30; // px of a cell that has room for its number
const GRAY = ["#000000", "#ffffff"];
const VIRIDIS = ["#440154", "#472d7b", "#3b528b", "#2c728e", "#21918c", "#28ae80", "#5ec962", "#addc30", "#fde725"];
const BLUE_RED = [
  "#053061",
  "#2166ac",
  "#4393c3",
  "#92c5de",
  "#d1e5f0",
  "#f7f7f7",
  "#fddbc7",
  "#f4a582",
  "#d6604d",
  "#b2182b",
  "#67001f",
];

/** An HTML element; functions among the properties are listeners, the rest are attributes. */
export function h(tag, properties = {}, ...children) {
  return furnished(document.createElement(tag), properties, children);
}

/** An SVG element, likewise. */
export function s(tag, properties = {}, ...children) {
  return furnished(document.createElementNS(SVG, tag), properties, children);
}

function furnished(element, properties, children) {
  for (const [name, value] of Object.entries(properties)) {
    if (typeof value === "function") element.addEventListener(name, value);
    else if (typeof value === "boolean") element.toggleAttribute(name, value);
    else if (value !== undefined && value !== null) element.setAttribute(name, value);
  }
  element.append(...children.flat().filter((child) => child !== null && child !== undefined));
  return element;
}

/** Replace what a section holds; the focus stays on what has the same id or the same data attribute there. */
export function refill(section, ...children) {
  const focused = document.activeElement;
  const attributes = section.contains(focused) ? [...focused.attributes] : [];
  const same = attributes.find(({ name }) => name.startsWith("data-") || name === "id");
  section.replaceChildren(...children);
  if (same) section.querySelector(`[${same.name}="${same.value}"]`)?.focus({ preventScroll: true });
}

const box = (x, y, width, height, fill) => ({ kind: "box", x, y, width, height, fill });
const label = (x, y, text, more = {}) => ({
  kind: "label",
  x,
  y,
  text,
  anchor: "start",
  turn: 0,
  size: LABEL,
  ...more,
});
const moved = (shapes, dx, dy) => shapes.map((shape) => ({ ...shape, x: shape.x + dx, y: shape.y + dy }));

/** The shapes as SVG elements. Colors left open are the surrounding text's. */
function svgOf(shape) {
  const { kind, x, y, text, anchor, turn, size, fill = "currentColor", mark, ...rest } = shape;
  if (kind === "box") return s("rect", { x, y, fill, ...rest });
  const place = turn ? `translate(${x} ${y}) rotate(${turn})` : `translate(${x} ${y})`;
  const look = { fill, "font-size": size, "text-anchor": anchor, "dominant-baseline": "central" };
  return s("text", { transform: place, direction: "ltr", ...look, "data-mark": mark }, text);
}

/** A drawing of its own, `width` x `height` px, as an SVG element. */
function toSvg(shapes, width, height, properties = {}) {
  return s("svg", { width, height, viewBox: `0 0 ${width} ${height}`, ...properties }, shapes.map(svgOf));
}

/** The same on a canvas, `scale` times as large, on white. */
export function toCanvas(shapes, width, height, scale) {
  const canvas = h("canvas", { width: Math.ceil(width * scale), height: Math.ceil(height * scale) });
  const context = canvas.getContext("2d");
  for (const shape of [box(0, 0, width, height, "#ffffff"), ...shapes]) {
    context.setTransform(scale, 0, 0, scale, scale * shape.x, scale * shape.y);
    context.fillStyle = shape.fill ?? "#000000";
    if (shape.kind === "box") context.fillRect(0, 0, shape.width, shape.height);
    else writeOn(context, shape);
  }
  return canvas;
}

function writeOn(context, { text, anchor, turn, size }) {
  context.rotate((turn * Math.PI) / 180);
  Object.assign(context, { font: `${size}px ${FONT}`, textAlign: anchor === "middle" ? "center" : anchor });
  Object.assign(context, { textBaseline: "middle", direction: "ltr" });
  context.fillText(text, 0, 0);
}

const ruler = document.createElement("canvas").getContext("2d");

function widthOf(text, size = LABEL) {
  ruler.font = `${size}px ${FONT}`;
  return ruler.measureText(text).width;
}

/** `text`, cut with an ellipsis where it would be wider than a label may be. */
function fitting(text) {
  const characters = [...text];
  while (characters.length > 1 && widthOf(characters.join("")) > LONGEST) characters.splice(-2, 2, "…");
  return characters.join("");
}

/**
 * A matrix ready to be drawn.
 * @param {string[]} rows names of the rows, the translation
 * @param {string[]} columns names of the columns, the source
 * @param {number[][]} values one row a target, one column a source
 * @param {boolean} signed from -bound to +bound rather than from 0 to 1
 * @param {number} bound largest absolute value, of all matrices to be compared with this one
 */
export function chart({ rows, columns, values, signed, bound = 1, color = false, room = 600 }) {
  const names = { rows: rows.map(fitting), columns: columns.map(fitting) };
  const left = Math.ceil(Math.max(...names.rows.map((name) => widthOf(name)))) + 12;
  const longest = Math.max(...names.columns.map((name) => widthOf(name)));
  const top = Math.ceil(longest * RISE) + 14;
  const cell = Math.min(Math.max(Math.floor((room - left - longest * LEAN) / columns.length), 16), 44);
  const overhang = Math.ceil(longest * LEAN) + 8;
  return { names, values, signed, bound, left, top, cell, overhang, ramp: rampOf(signed, color) };
}

function rampOf(signed, color) {
  if (!color) return GRAY;
  return signed ? BLUE_RED : VIRIDIS;
}

/** The color at `part`, 0 to 1, of a ramp. */
function colorAt(ramp, part) {
  const place = Math.min(Math.max(part, 0), 1) * (ramp.length - 1);
  const first = Math.min(Math.floor(place), ramp.length - 2);
  const [from, to] = [ramp[first], ramp[first + 1]].map(channels);
  return from.map((channel, index) => Math.round(channel + (to[index] - channel) * (place - first)));
}

const channels = (hex) => [1, 3, 5].map((start) => parseInt(hex.slice(start, start + 2), 16));
const rgb = (color) => `rgb(${color.join(",")})`;
const partOf = ({ signed, bound }, value) => (signed ? (value / bound + 1) / 2 : value);

/** Black or white, whichever reads better on `color`. */
function inkOn(color) {
  const [red, green, blue] = color.map((channel) => (channel / 255) ** 2.2);
  return 0.2126 * red + 0.7152 * green + 0.0722 * blue > 0.18 ? "#000000" : "#ffffff";
}

/** Shapes of the column names; the origin is the upper left corner of their strip. */
function columnNames({ names, cell, top }) {
  return names.columns.map((name, column) =>
    label((column + 0.5) * cell, top - 8, name, { turn: TURN, mark: `column-${column}` }),
  );
}

/** Shapes of the row names. */
function rowNames({ names, cell, left }) {
  return names.rows.map((name, row) =>
    label(left - 7, (row + 0.5) * cell, name, { anchor: "end", mark: `row-${row}` }),
  );
}

/** Shapes of the cells, with their numbers where there is room. */
function cells(drawn) {
  const { values, cell, ramp, signed } = drawn;
  return values.flatMap((row, y) =>
    row.flatMap((value, x) => {
      const color = colorAt(ramp, partOf(drawn, value));
      const shape = box(x * cell, y * cell, cell, cell, rgb(color));
      if (cell < NUMBERS_FROM) return [shape];
      const number = shortNumber(value, signed);
      const middle = { anchor: "middle", size: 11, fill: inkOn(color) };
      return number ? [shape, label((x + 0.5) * cell, (y + 0.5) * cell, number, middle)] : [shape];
    }),
  );
}

function shortNumber(value, signed) {
  if (signed) return value.toFixed(1).replace("-0.0", "0.0").replace("-", "−");
  return value < 0.005 ? "" : value.toFixed(2).replace(/^0/, "");
}

/** Shapes of the scale below the matrix. */
function scale({ ramp, signed, bound }) {
  const steps = Array.from({ length: 40 }, (_, step) => box(step * 4, 0, 4.5, 10, rgb(colorAt(ramp, step / 39))));
  const [low, high] = signed ? [`−${bound.toFixed(1)}`, `+${bound.toFixed(1)}`] : ["0", "1"];
  const ends = [label(0, 20, low, { size: 11 }), label(160, 20, high, { size: 11, anchor: "end" })];
  return signed ? [...steps, ...ends, label(80, 20, "0", { size: 11, anchor: "middle" })] : [...steps, ...ends];
}

/** The four parts of a matrix on the page, so that names stay in sight while the cells scroll. */
export function sheet(drawn) {
  const width = drawn.names.columns.length * drawn.cell + drawn.overhang;
  const height = drawn.names.rows.length * drawn.cell;
  const hidden = { "aria-hidden": "true" };
  return {
    corner: h("div", { class: "corner" }),
    head: toSvg(columnNames(drawn), width, drawn.top, { class: "head", ...hidden }),
    side: toSvg(rowNames(drawn), drawn.left, height, { class: "side", ...hidden }),
    body: toSvg(cells(drawn), width, height, { class: "body", "shape-rendering": "crispEdges", ...hidden }),
    scale: toSvg(scale(drawn), 162, 28, { class: "scale", ...hidden }),
  };
}

/** The whole matrix as one drawing, with a title and a caption: what is downloaded. */
export function poster(drawn, title, caption) {
  const { names, cell, left, top, overhang } = drawn;
  const above = top + 34;
  const below = above + names.rows.length * cell;
  const width =
    Math.max(left + names.columns.length * cell + overhang, widthOf(title, 16), widthOf(caption, 11), 180) + 24;
  const shapes = [
    label(0, 14, title, { size: 16 }),
    ...moved(columnNames(drawn), left, 34),
    ...moved(rowNames(drawn), 0, above),
    ...moved(cells(drawn), left, above),
    ...moved(scale(drawn), left, below + 14),
    label(0, below + 58, caption, { size: 11 }),
  ];
  return { shapes: moved(shapes, 12, 8), width: Math.ceil(width), height: Math.ceil(below + 80) };
}

/** A poster as the text of an SVG file. */
export function svgFile({ shapes, width, height }) {
  const all = [box(0, 0, width, height, "#ffffff"), ...shapes];
  const svg = toSvg(all, width, height, { xmlns: SVG, color: "#000000", "font-family": FONT });
  return new XMLSerializer().serializeToString(svg);
}

/** A matrix as a stamp: one pixel a cell, to be enlarged by the page. */
export function stamp(values, bound, color) {
  const canvas = h("canvas", { width: values[0].length, height: values.length, "aria-hidden": "true" });
  const context = canvas.getContext("2d");
  const drawn = { signed: true, bound };
  values.forEach((row, y) =>
    row.forEach((value, x) => {
      context.fillStyle = rgb(colorAt(rampOf(true, color), partOf(drawn, value)));
      context.fillRect(x, y, 1, 1);
    }),
  );
  return canvas;
}

/**
 * Curves over positions, told apart by their dashes and named at their ends.
 * @param {number[][]} values [positions][curves]
 * @param {number[]} marked positions to point at
 */
export function curves(values, names, marked, ariaLabel) {
  const [width, height, margin] = [420, 170, 14];
  const all = [...values.flat(), 0];
  const [low, high] = [Math.min(...all), Math.max(...all)];
  const x = (position) => margin + (position * (width - 90)) / Math.max(values.length - 1, 1);
  const y = (value) => margin + ((high - value) / (high - low || 1)) * (height - 2 * margin);
  const line = (axis) =>
    values.map((row, position) => `${position ? "L" : "M"}${x(position)} ${y(row[axis])}`).join("");
  const ends = values.at(-1);
  return s(
    "svg",
    { viewBox: `0 0 ${width} ${height}`, class: "curves", role: "img", "aria-label": ariaLabel },
    s("path", { class: "zero", d: `M${margin} ${y(0)}H${width - 76}` }),
    marked.map((position) => s("path", { class: "marked", d: `M${x(position)} 4V${height - 4}` })),
    names.map((_, axis) => s("path", { class: `curve curve-${axis}`, d: line(axis) })),
    spread(ends.map(y), 14, height).map((place, axis) =>
      s("text", { x: width - 70, y: place, class: `curve-name-${axis}` }, names[axis]),
    ),
  );
}

/** Places pushed apart until none is nearer than `gap` to another, within 0 to `limit`. */
function spread(places, gap, limit) {
  const order = places.map((_, index) => index).sort((a, b) => places[a] - places[b]);
  const moved = [...places];
  order.forEach((index, rank) => {
    if (rank) moved[index] = Math.max(moved[index], moved[order[rank - 1]] + gap);
  });
  const over = Math.max(0, moved[order.at(-1)] - (limit - 4));
  return moved.map((place) => place - over + 4);
}
