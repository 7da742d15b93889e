"use strict";
// Draws the tables and figures of a report. What the blocks are is told in page.py. Text goes into the page as text, never as HTML.

const made = (tag, properties = {}, ...children) => {
  const element = Object.assign(document.createElement(tag), properties);
  element.append(...children);
  return element;
};

// Cells: a value, or [number to sort by, text to show].
const valueOf = (cell) => (Array.isArray(cell) ? cell[0] : cell);

const textOf = (cell, kind) => {
  if (Array.isArray(cell)) return cell[1];
  if (cell === null) return "-";
  if (typeof cell === "boolean") return cell ? "yes" : "no";
  if (typeof cell !== "number") return cell;
  if (kind === "id" || kind === "text") return String(cell);
  if (kind === "share") return `${Math.round(100 * cell)} %`;
  if (Math.abs(cell) >= 1000) return Math.round(cell).toLocaleString("en");
  return String(Number(cell.toPrecision(4)));
};

// "a b" must hold both words; "> 0.9", "<=3" and "=5" compare numbers. Null where a condition is unfinished.
const condition = (text, kind) => {
  const comparison = text.trim().match(/^(<=|>=|<|>|=)\s*(\S*)\s*(%?)$/);
  if (comparison && kind !== "text") {
    if (comparison[2] === "" || Number.isNaN(Number(comparison[2]))) return null;
    const limit = Number(comparison[2]) / (comparison[3] ? 100 : 1);
    const kept = { "<": (v) => v < limit, "<=": (v) => v <= limit, ">": (v) => v > limit, ">=": (v) => v >= limit,
      "=": (v) => v === limit }[comparison[1]];
    return (cell) => typeof valueOf(cell) === "number" && kept(valueOf(cell));
  }
  const words = text.toLowerCase().split(/\s+/).filter(Boolean);
  return (cell) => words.every((word) => textOf(cell, kind).toLowerCase().includes(word));
};

const compared = (left, right) => {
  if (left === null || right === null) return (left === null) - (right === null);
  return typeof left === "string" ? left.localeCompare(right, "en", { numeric: true }) : left - right;
};

const SHORT = 28;
const FEW_ROWS = 6;

class SortedTable {
  constructor(block, place) {
    Object.assign(this, { block, rows: block.rows, shown: block.shown, sorted: null, isDown: false, listeners: [] });
    this.columns = block.headings.filter(({ kind }) => kind !== "remark");
    this.filters = this.columns.map(() => "");
    this.body = made("tbody");
    this.count = made("span", { className: "count" });
    this.count.setAttribute("role", "status");
    this.more = made("button", { type: "button", textContent: "Show more" });
    this.more.addEventListener("click", () => { this.shown *= 4; this.draw(); });
    const tools = made("div", { className: "tools" }, this.count, this.more);
    const table = made("table", {}, this.head(), this.body);
    place.append(tools, made("div", { className: "scroll" }, table));
    this.draw();
  }

  head() {
    this.heads = this.columns.map((heading, index) => {
      const button = made("button", { type: "button", textContent: heading.name });
      button.addEventListener("click", () => this.sort(index));
      return made("th", { scope: "col", className: heading.kind === "text" ? "" : "number" }, button);
    });
    const inputs = this.columns.map((heading, index) => {
      const input = made("input", { type: "search", placeholder: heading.kind === "text" ? "filter" : "> 0" });
      input.setAttribute("aria-label", `filter ${heading.name}`);
      input.addEventListener("input", () => {
        input.classList.toggle("wrong", condition(input.value, heading.kind) === null);
        this.filters[index] = input.value;
        this.draw();
      });
      return made("th", {}, input);
    });
    const filters = made("tr", { className: "filters", hidden: this.block.rows.length < FEW_ROWS }, ...inputs);
    return made("thead", {}, made("tr", {}, ...this.heads), filters);
  }

  // Numbers descend at first, as the largest are sought; texts ascend.
  sort(index) {
    const isText = this.block.headings[index].kind === "text";
    this.isDown = this.sorted === index ? !this.isDown : !isText;
    this.sorted = index;
    this.heads.forEach((head, at) => head.setAttribute("aria-sort", at !== index ? "none" : this.isDown ? "descending" : "ascending"));
    const sign = this.isDown ? -1 : 1;
    this.rows = [...this.block.rows].sort((a, b) => {
      const [left, right] = [valueOf(a[index]), valueOf(b[index])];
      return left === null || right === null ? compared(left, right) : sign * compared(left, right);
    });
    this.draw();
  }

  kept() {
    const conditions = this.filters
      .map((text, index) => [index, text.trim() ? condition(text, this.block.headings[index].kind) : null])
      .filter(([, keeps]) => keeps);
    return this.rows.filter((row) => conditions.every(([index, keeps]) => keeps(row[index])));
  }

  // A remark has a row of its own: in a column, it would be off the screen or make its row tall.
  rowsOf(row) {
    const cells = this.columns.map(({ kind }, index) => {
      const text = textOf(row[index], kind);
      return made("td", { className: kind !== "text" ? "number" : text.length <= SHORT ? "short" : "long", textContent: text });
    });
    const remark = row[this.columns.length];
    if (!remark) return [made("tr", {}, ...cells)];
    const told = made("td", { colSpan: cells.length }, made("div", { textContent: remark }));
    return [made("tr", { className: "remarked" }, ...cells), made("tr", { className: "remark" }, told)];
  }

  draw() {
    const rows = this.kept();
    const shown = rows.slice(0, this.shown);
    this.body.replaceChildren(...shown.flatMap((row) => this.rowsOf(row)));
    const of = rows.length < this.block.rows.length ? `${rows.length} of ${this.block.rows.length} rows match` : `${rows.length} rows`;
    this.count.textContent = shown.length < rows.length ? `${of}; the first ${shown.length} are shown` : of;
    this.more.hidden = shown.length === rows.length;
    this.listeners.forEach((listener) => listener(rows));
  }
}

const CONFIG = { responsive: true, displaylogo: false, modeBarButtonsToRemove: ["select2d", "lasso2d"] };
const SHARED = {
  font: { family: "system-ui, 'Segoe UI', Roboto, 'DejaVu Sans', sans-serif", size: 12, color: "#222" },
  margin: { l: 70, r: 20, t: 30, b: 50 },
  height: 420,
  hovermode: "closest",
  plot_bgcolor: "#fff",
  paper_bgcolor: "#fff",
  legend: { orientation: "h", y: -0.18, x: 0 },
};
const AXIS = { gridcolor: "#e8e8e8", zerolinecolor: "#ccc", automargin: true };

const plot = (place, traces, layout) => {
  const axes = Object.fromEntries(Object.entries({ xaxis: {}, yaxis: {}, ...layout })
    .filter(([name]) => /^[xy]axis/.test(name)).map(([name, axis]) => [name, { ...AXIS, ...axis }]));
  return Plotly.react(place, traces, { ...SHARED, ...layout, ...axes }, CONFIG);
};

const drawChart = (block, place) => {
  const figure = made("div", { className: "plot" });
  place.append(figure);
  plot(figure, block.traces, block.layout);
  if (!block.details.length) return;
  const panel = made("div", { className: "detail", textContent: block.ask });
  panel.setAttribute("aria-live", "polite");
  place.append(panel);
  figure.on("plotly_click", ({ points }) => {
    const detail = block.details[points.find((point) => Number.isInteger(point.customdata))?.customdata];
    if (!detail) return;
    const pairs = Object.entries(detail).flatMap(([name, value]) => [made("dt", { textContent: name }), made("dd", { textContent: value })]);
    panel.replaceChildren(made("dl", {}, ...pairs));
  });
};

// The Explorer: one mark a row where the horizontal axis has many values, else means by value.
const MOST_MEANS = 40;
const escaped = (text) => String(text).replace(/&/g, "&amp;").replace(/</g, "&lt;").replace(/>/g, "&gt;");

const meansBy = (points) => {
  const sums = new Map();
  for (const [x, y] of points) {
    const sum = sums.get(x) ?? [0, 0];
    sums.set(x, [sum[0] + y, sum[1] + 1]);
  }
  return [...sums].map(([x, [sum, count]]) => [x, sum / count, count]).sort((a, b) => compared(a[0], b[0]));
};

const traceOf = (name, points, color, isMean) => {
  const drawn = isMean ? meansBy(points) : points;
  const trace = { name: escaped(name), x: drawn.map(([x]) => (typeof x === "string" ? escaped(x) : x)), y: drawn.map(([, y]) => y),
    type: "scatter", mode: isMean ? "lines+markers" : "markers", marker: { color, size: isMean ? 8 : 5, opacity: isMean ? 1 : 0.6 },
    line: { color } };
  return isMean ? { ...trace, text: drawn.map(([, , count]) => `mean of ${count}`) } : trace;
};

const drawExplorer = (block, place, table) => {
  const places = Object.fromEntries(table.block.headings.map((heading, index) => [heading.name, index]));
  const chooser = (name, options) => {
    const select = made("select", {}, ...options.map((option) => made("option", { textContent: option, value: option })));
    select.setAttribute("aria-label", name);
    return select;
  };
  const [x, y] = [chooser("horizontal axis", block.x), chooser("vertical axis", block.y)];
  const figure = made("div", { className: "plot" });
  place.append(made("div", { className: "tools" }, made("label", {}, "horizontal: ", x), made("label", {}, "vertical: ", y)), figure);
  const draw = (rows) => {
    const known = rows.map((row) => [valueOf(row[places[x.value]]), valueOf(row[places[y.value]]), row[places[block.group]]])
      .filter(([left, right]) => left !== null && right !== null).map(([left, right, group]) => [left, Number(right), group]);
    const isMean = new Set(known.map(([left]) => left)).size <= MOST_MEANS;
    const groups = [...new Set(known.map(([, , group]) => group))].sort();
    plot(figure, groups.map((group) => traceOf(group, known.filter((point) => point[2] === group), block.colors[group], isMean)),
      { xaxis: { title: { text: escaped(x.value) } }, yaxis: { title: { text: escaped(y.value) } }, showlegend: true });
  };
  const redraw = () => draw(table.kept());
  x.addEventListener("change", redraw);
  y.addEventListener("change", redraw);
  table.listeners.push(draw);
  redraw();
};

let latest = null;
const blocks = JSON.parse(document.getElementById("blocks").textContent);
blocks.forEach((block, number) => {
  const place = document.querySelector(`[data-block="${number}"] .drawn`);
  if (block.kind === "table") latest = new SortedTable(block, place);
  else if (block.kind === "chart") drawChart(block, place);
  else drawExplorer(block, place, latest);
});

// Figures keep the width of the window on paper, unless they are told of the change.
const fit = () => document.querySelectorAll(".plot").forEach((figure) => Plotly.Plots.resize(figure));
window.addEventListener("beforeprint", fit);
window.addEventListener("afterprint", fit);
document.body.dataset.ready = "yes";
