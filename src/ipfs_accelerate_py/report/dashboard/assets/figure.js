import { byId, element, shortNumber } from "./dom.js";

// Lists of a trace that have one item per mark. Others (a colour scale) may be as long by chance and are left alone.
const PER_MARK = [["x"], ["y"], ["base"], ["width"], ["text"], ["hovertext"], ["customdata"], ["marker", "color"], ["marker", "size"], ["marker", "symbol"],
  ["marker", "opacity"], ["error_x", "array"], ["error_x", "arrayminus"], ["error_y", "array"], ["error_y", "arrayminus"]];

/** Names in the order of their first rows, where the rows are sorted. */
function inOrder(names, traces, order) {
  if (!order) return names;
  const first = new Map();
  for (const trace of traces) trace.customdata?.forEach((key, place) => { const name = trace.y[place]; first.set(name, Math.min(first.get(name) ?? Infinity, order.get(key))); });
  return names.sort((a, b) => first.get(a) - first.get(b));
}

function keepMarks(trace, visible) {
  if (!trace.customdata) return trace; // a ceiling or another line that belongs to no row
  const places = trace.customdata.flatMap((key, index) => (visible.has(key) ? [index] : []));
  const kept = { ...trace };
  for (const [outer, inner] of PER_MARK) {
    const list = inner ? kept[outer]?.[inner] : kept[outer];
    if (!Array.isArray(list)) continue;
    const chosen = places.map((place) => list[place]);
    if (inner) kept[outer] = { ...kept[outer], [inner]: chosen };
    else kept[outer] = chosen;
  }
  return kept;
}

/** The part of a figure that belongs to the visible rows; of a long list of names, one page. */
export function partOf(figure, visible, page, order = null) {
  const meta = figure.layout.meta ?? {};
  const layout = structuredClone(figure.layout);
  let traces = figure.data.map((trace) => keepMarks(trace, visible)).filter((trace) => !trace.customdata || trace.customdata.length > 0);
  let pages = 1, shownPage = 1, told = "";
  if (meta.page) {
    const there = new Set(traces.filter((trace) => trace.customdata).flatMap((trace) => trace.y));
    const names = inOrder((layout.yaxis.categoryarray ?? []).filter((name) => there.has(name)), traces, order);
    pages = Math.max(1, Math.ceil(names.length / meta.page));
    shownPage = Math.min(page, pages);
    const chosen = new Set(names.slice((shownPage - 1) * meta.page, shownPage * meta.page));
    const inPage = (trace) => new Set(trace.customdata.filter((_, index) => chosen.has(trace.y[index])));
    traces = traces.map((trace) => (trace.customdata ? keepMarks(trace, inPage(trace)) : trace)).filter((trace) => !trace.customdata || trace.customdata.length > 0);
    layout.yaxis.categoryarray = [...chosen];
    layout.yaxis.range = [chosen.size - 0.5, -0.5];
    layout.yaxis.autorange = false;
    layout.height = 150 + meta.category_px * Math.max(chosen.size, 1);
    if (!meta.columns) fitAxis(traces, layout);
    if (pages > 1) told = `rows ${(shownPage - 1) * meta.page + 1} to ${Math.min(shownPage * meta.page, names.length)} of ${names.length}`;
  }
  if (meta.traces && traces.length > meta.traces) {
    told = `the first ${meta.traces} of ${traces.length} lines: filter to see others`;
    traces = traces.slice(0, meta.traces);
  }
  if (meta.columns) closeColumns(traces, layout, meta);
  return { traces, layout, pages, page: shownPage, told };
}

/** The x axis spans what is drawn, with room for the texts beside it; its ticks are chosen anew where the span is much smaller. */
function fitAxis(traces, layout) {
  const marks = traces.filter((trace) => trace.customdata);
  const values = marks.flatMap((trace) => trace.x.flatMap((value, place) => [value, value + (trace.error_x?.array?.[place] ?? 0), value - (trace.error_x?.arrayminus?.[place] ?? 0)])).filter((value) => value > 0);
  if (values.length === 0) return;
  if (layout.xaxis.type === "log") {
    const logs = values.map(Math.log10).sort((a, b) => a - b);
    const [low, high] = [logs[0], logs.at(-1)];
    const margin = Math.max(0.08 * (high - low), (0.5 - (high - low)) / 2, 0.06);
    layout.xaxis.range = [low - margin, high + margin];
    if (high - low < 1.5) Object.assign(layout.xaxis, { tickvals: null, ticktext: null, tickmode: "auto", nticks: 8, dtick: null, exponentformat: "none" });
    return;
  }
  const sums = new Map();
  for (const trace of marks) trace.y.forEach((name, place) => sums.set(name, layout.barmode === "stack" ? (sums.get(name) ?? 0) + trace.x[place] : Math.max(sums.get(name) ?? 0, trace.x[place])));
  layout.xaxis.range = [0, Math.max(...sums.values()) * (layout.barmode === "stack" || layout.barmode === "group" ? 1.18 : 1.05)];
}

/** Columns without a tile are closed, so that what is left has room. */
function closeColumns(traces, layout, meta) {
  const used = [...new Set(traces.flatMap((trace) => trace.base))].sort((a, b) => a - b);
  for (const trace of traces) trace.base = trace.base.map((base) => used.indexOf(base));
  layout.xaxis.range = [0, Math.max(used.length, 1)];
  layout.xaxis.tickvals = used.map((_, place) => place + 0.475);
  layout.xaxis.ticktext = used.map((column) => meta.columns[column]);
  const longest = Math.max(...layout.yaxis.categoryarray.flatMap((name) => name.split("<br>").map((line) => line.replace(/<[^>]*>/g, "").length * (line.includes("10px") ? 5.2 : 6.8))));
  layout.min_width = Math.min(longest, 360) + 30 + meta.column_px * used.length;
}

export function inks() {
  const root = getComputedStyle(document.documentElement);
  const line = getComputedStyle(document.getElementById("theme")).borderBottomColor;
  return { ink: getComputedStyle(document.body).color, line, paper: root.backgroundColor };
}

function colour(layout) {
  const { ink, line } = inks();
  layout.font = { ...layout.font, color: ink };
  for (const name of ["xaxis", "yaxis"]) if (layout[name]) layout[name].gridcolor = line;
}

/** Resolves when Plotly is there. The served page loads it while the data are asked for; in a file it stands before this script. */
export const library = new Promise((there, failed) => {
  const script = byId("plotly");
  if (window.Plotly || !script) there();
  else {
    script.addEventListener("load", there);
    script.addEventListener("error", () => failed(new Error("The figures' library did not load: reload the page.")));
  }
});
library.catch(() => {}); // said where a figure is wanted

/** Draw into a plot element; names are shortened and legends go where there is little room. */
export async function drawFigure(plot, part, onPick) {
  await library;
  if (!plot.isConnected) return; // another view is shown meanwhile
  const layout = structuredClone(part.layout);
  colour(layout);
  plot.style.minWidth = layout.min_width ? `${layout.min_width}px` : "";
  if (layout.meta?.columns) layout.width = Math.max(plot.parentNode.clientWidth, layout.min_width);
  delete layout.min_width;
  if (layout.meta?.traces && part.traces.length > 8) layout.showlegend = false; // the lines tell their names under the pointer; the table has them all
  const narrow = plot.parentNode.clientWidth < 560;
  if (narrow) {
    layout.font.size = 11;
    if (layout.meta?.columns) shortNames(layout);
    else if (layout.meta?.category_px) namesAbove(layout);
  }
  if (layout.meta?.columns) fixMargins(layout, part.traces);
  for (const name of ["x", "y"]) logTicks(layout[`${name}axis`], part.traces.flatMap((trace) => trace[name]));
  const shown = narrow ? part.traces.map((trace) => ({ ...trace, name: cut(trace.name ?? "", LEGEND_LETTERS) })) : part.traces;
  const traces = shown.map((trace) => (trace.type === "bar" ? { ...trace, insidetextfont: { ...trace.textfont, color: inks().ink }, outsidetextfont: { ...trace.textfont, color: inks().ink } } : trace));
  Plotly.react(plot, traces, layout,
    { displayModeBar: false, responsive: !layout.meta?.columns });
  plot.removeAllListeners?.("plotly_click");
  if (onPick) plot.on("plotly_click", (event) => { if (event.points[0]?.customdata !== undefined) onPick(event.points[0].customdata); });
}

const LEGEND_ROW_PX = 20, LEGEND_MARK_PX = 48, LINE_HEIGHT = 1.3;
let pen = null;

function textWidth(text, size, family) {
  pen ??= document.createElement("canvas").getContext("2d");
  pen.font = `${size}px ${family}`;
  return pen.measureText(text.replace(/<[^>]*>/g, "").replaceAll("&lt;", "<").replaceAll("&gt;", ">").replaceAll("&amp;", "&")).width;
}

/** Room for the names beside and above the tiles and for the legend. Plotly would find it by drawing everything, twice or more often. */
function fixMargins(layout, traces) {
  const { size = 13, family } = layout.font;
  const lines = (layout.yaxis.ticktext ?? layout.yaxis.categoryarray).flatMap((name) => name.split("<br>"));
  const left = Math.max(...lines.map((line) => textWidth(line, line.includes("10px") ? 10 : size, family)));
  const heads = Math.max(...layout.xaxis.ticktext.map((name) => name.split("<br>").length));
  const items = traces.map((trace) => textWidth(trace.name, 12, family) + LEGEND_MARK_PX);
  const room = layout.width - 20;
  const rows = items.reduce((sum, one) => sum + one, 0) <= room ? 1 : Math.ceil(items.length / Math.max(1, Math.floor(room / Math.max(...items))));
  const top = Math.round(rows * LEGEND_ROW_PX + 14 + heads * size * LINE_HEIGHT);
  layout.height += top - layout.margin.t;
  layout.margin = { ...layout.margin, l: Math.ceil(left) + 18, t: top, autoexpand: false };
}

/** Whole numbers along a logarithmic axis: Plotly writes 2 where 20 is meant. */
function logTicks(axis, values) {
  if (axis?.type !== "log" || axis.tickvals || axis.tickmode === "auto" || axis.exponentformat === "power") return;
  const logs = values.filter((value) => value > 0).map(Math.log10);
  if (logs.length === 0) return;
  const [low, high] = logs.reduce(([least, most], one) => [Math.min(least, one), Math.max(most, one)], [Infinity, -Infinity]);
  const steps = high - low < 0.5 ? [1, 1.2, 1.5, 2, 2.5, 3, 4, 5, 6, 8] : high - low < 1.5 ? [1, 2, 5] : high - low < 3 ? [1, 3] : [1];
  const powers = Array.from({ length: Math.ceil(high) - Math.floor(low) + 3 }, (_, place) => Math.floor(low) - 1 + place);
  axis.tickvals = powers.flatMap((power) => steps.map((step) => step * 10 ** power));
  axis.ticktext = axis.tickvals.map(shortNumber);
}

const NAME_LETTERS = 58, LEGEND_LETTERS = 42;

const cut = (line, most) => (line.length > most ? `${line.slice(0, most - 1)}…` : line);

/** Names beside tiles, cut so that a narrow screen shows a tile as well. */
function shortNames(layout) {
  layout.yaxis.tickvals = layout.yaxis.categoryarray;
  layout.yaxis.ticktext = layout.yaxis.categoryarray.map((name) => name.split("<br>").map((line) => line.replace(/>([^<]*)</g, (_, text) => `>${cut(text, 24)}<`)).map((line) => (line.includes("<") ? line : cut(line, 20))).join("<br>"));
}

/** Where there is no room beside the marks, each name stands above its own. */
function namesAbove(layout) {
  const lines = (name) => name.split("<br>").map((line) => cut(line.replace(/<[^>]*>/g, ""), NAME_LETTERS));
  const names = layout.yaxis.categoryarray;
  layout.yaxis.showticklabels = false;
  layout.bargap = 0.62;
  layout.height += 46 * names.length;
  layout.yaxis.range = [names.length - 0.4, -0.7];
  layout.annotations = names.map((name) => ({ x: 0, xref: "paper", xanchor: "left", y: name, yref: "y", yanchor: "bottom", yshift: 21, text: lines(name).join("<br>"), align: "left", showarrow: false, font: { size: 10 } }));
}

/** The figure as drawn, on the page's paper, as a file. */
export async function figureFile(plot, format) {
  const layout = structuredClone(plot.layout);
  layout.paper_bgcolor = inks().paper;
  const made = await Plotly.toImage({ data: plot.data, layout }, { format, width: Math.max(plot.clientWidth, 900), height: layout.height, scale: format === "png" ? 2 : 1 });
  return format === "svg" ? new Blob([decodeURIComponent(made.slice(made.indexOf(",") + 1))], { type: "image/svg+xml" }) : blobOf(made);
}

function blobOf(address) {
  const bytes = Uint8Array.from(atob(address.slice(address.indexOf(",") + 1)), (letter) => letter.charCodeAt(0));
  return new Blob([bytes], { type: "image/png" });
}

export function plotElement(label) {
  return element("div", { class: "plot", role: "img", "aria-label": label });
}
