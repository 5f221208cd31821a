import { element, shortText } from "./dom.js";

const ROWS_AT_ONCE = 100;

/** The rows as a table that sorts by its heads; the first column opens a cell's details. */
export function rowsTable(answer, rows, { sort, onSort, onOpen, command }) {
  const numeric = new Set(answer.columns.map(({ key }) => key).filter((key) => rows.some((row) => typeof row[key] === "number")));
  const head = element("tr", {}, ...answer.columns.map((column) => headCell(column, numeric.has(column.key), sort, onSort)));
  const body = element("tbody");
  let shown = 0;
  const more = element("button", { type: "button", class: "quiet more", on: { click: () => addRows() } });
  const addRows = () => {
    for (const row of rows.slice(shown, shown + ROWS_AT_ONCE)) body.append(rowElement(answer.columns, row, numeric, onOpen, command));
    shown = Math.min(shown + ROWS_AT_ONCE, rows.length);
    more.hidden = shown >= rows.length;
    more.textContent = `Show more (${shown.toLocaleString("en")} of ${rows.length.toLocaleString("en")} rows)`;
  };
  addRows();
  const table = element("table", { class: "rows" }, element("caption", {}, `${answer.title}: the numbers`), element("thead", {}, head), body);
  return element("div", {}, element("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": `${answer.title}: table` }, table), more);
}

function headCell({ key, label, unit }, isNumber, sort, onSort) {
  const name = sort.replace(/^-/, "");
  const direction = name !== key ? "none" : sort.startsWith("-") ? "descending" : "ascending";
  const next = direction === "ascending" ? `-${key}` : key;
  const mark = { none: "", ascending: " ▲", descending: " ▼" }[direction];
  if (!onSort) return element("th", { scope: "col", class: isNumber ? "number" : "" }, unit ? `${label}, ${unit}` : label);
  const button = element("button", { type: "button", "data-sort": key, on: { click: () => onSort(next) } }, unit ? `${label}, ${unit}${mark}` : `${label}${mark}`);
  return element("th", { scope: "col", "aria-sort": direction, class: isNumber ? "number" : "" }, button);
}

function rowElement(columns, row, numeric, onOpen, command) {
  const cells = columns.map(({ key }, place) => {
    const text = key === "kind" ? element("span", { class: `badge ${row[key]}` }, shortText(row[key])) : shortText(row[key]);
    if (place > 0) return element("td", { class: numeric.has(key) ? "number" : key === command ? "code" : "" }, text);
    const opens = row.cell && row.kind !== "predicted";
    return element("th", { scope: "row" }, opens ? element("button", { type: "button", class: "open", "data-cell": row.cell, on: { click: () => onOpen(row.cell) } }, text) : text);
  });
  return element("tr", { class: row.kind === "simulated" || row.provenance === "simulated" ? "simulated" : "" }, ...cells);
}

/** A small table without sorting: of a head (or none) and lists of texts. */
export function plainTable(heads, lines, caption) {
  const head = heads ? [element("thead", {}, element("tr", {}, ...heads.map((text) => element("th", { scope: "col" }, text))))] : [];
  const body = lines.map((line) => element("tr", {}, ...line.map((value, place) => element(place ? "td" : "th", place ? { class: typeof value === "number" ? "number" : "" } : { scope: "row" }, shortText(value)))));
  return element("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": caption },
    element("table", {}, element("caption", { class: "visually-hidden" }, caption), ...head, element("tbody", {}, ...body)));
}
