import { commandBox, element, shortText } from "./dom.js";
import { save, toCsv } from "./exports.js";
import { ask, isFile, withQuery } from "./source.js";

const EXAMPLES = {
  "Fastest first": "SELECT model_class, label, median_ms, launches_ok, provenance FROM spec_summary ORDER BY median_ms",
  "What failed": "SELECT label, model_class, error_class, error_message FROM launch_summary WHERE status <> 'ok'",
  "Tables and views": "SHOW TABLES",
  "Columns of a launch": "DESCRIBE launch_summary",
};

/** Ask the store in SQL. The text is in the address, so a link shows the same answer. */
export function consoleView(place, state, remember) {
  if (isFile) {
    place.replaceChildren(element("p", { class: "state" }, "A file cannot run SQL. The served dashboard can, and so can the command line:"), commandBox('ipfs-accelerate query "SELECT model_class, label, median_ms FROM spec_summary"'));
    return;
  }
  const text = element("textarea", { id: "sql", rows: "6", spellcheck: "false", "aria-keyshortcuts": "Control+Enter" });
  text.value = state.sql || Object.values(EXAMPLES)[0];
  const result = element("div", { id: "result", "aria-live": "polite" });
  const run = async () => {
    remember(text.value);
    result.replaceChildren(element("p", { class: "state" }, "Asking …"));
    try {
      result.replaceChildren(...answered(await ask("api/sql", [["query", text.value]]), text.value));
    } catch (error) {
      result.replaceChildren(element("p", { class: "state bad", role: "alert" }, error.message));
    }
  };
  text.addEventListener("keydown", (event) => { if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) run(); });
  const examples = Object.entries(EXAMPLES).map(([name, sql]) => element("button", { type: "button", class: "quiet", on: { click: () => { text.value = sql; run(); } } }, name));
  place.replaceChildren(
    element("label", { for: "sql" }, "One SELECT, on a copy of the store that nothing can write to. At most 10,000 rows and 10 seconds."), text,
    element("div", { class: "exports" }, element("button", { type: "button", class: "quiet strong", id: "run", on: { click: run } }, "Run (Ctrl+Enter)"), ...examples), result);
  if (state.sql) run();
}

function answered(told, text) {
  const numeric = told.columns.map((_, place) => told.rows.some((row) => typeof row[place] === "number"));
  const objects = () => told.rows.map((row) => Object.fromEntries(told.columns.map((name, place) => [name, row[place]])));
  const head = element("tr", {}, ...told.columns.map((name, place) => element("th", { scope: "col", class: numeric[place] ? "number" : "" }, name)));
  const rows = told.rows.slice(0, 500).map((row) => element("tr", {}, ...row.map((value, place) => element("td", { class: numeric[place] ? "number" : "" }, shortText(value)))));
  const cut = told.cut ? `the first ${told.limit.toLocaleString("en")} rows` : `${told.rows.length.toLocaleString("en")} rows`;
  return [
    element("div", { class: "exports" }, element("span", { class: "muted" }, rows.length < told.rows.length ? `${cut}, ${rows.length} drawn` : cut),
      element("button", { type: "button", class: "quiet", on: { click: () => save("query.csv", toCsv(told.columns, objects()), "text/csv") } }, "CSV"),
      element("button", { type: "button", class: "quiet", on: { click: () => save("query.json", JSON.stringify(objects(), null, 1), "application/json") } }, "JSON"),
      element("a", { class: "quiet", download: "query.parquet", href: withQuery("api/sql", [["query", text], ["format", "parquet"]]) }, "Parquet")),
    element("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": "Answer" }, element("table", { class: "rows" }, element("caption", { class: "visually-hidden" }, "Answer"), element("thead", {}, head), element("tbody", {}, ...rows))),
  ];
}
