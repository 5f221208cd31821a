/** As filters.py, whose tests run both: a facet keeps rows with one of its values, a search those with all of its words. */
export const FACETS = ["model_class", "size", "precision", "batch_size", "mode", "platform", "engine", "browser", "kind", "machine", "campaign"];
export const FACET_NAMES = { model_class: "Model", size: "Size", precision: "Precision", batch_size: "Batch", mode: "Mode", platform: "Platform",
  engine: "Engine", browser: "Browser", kind: "Kind", machine: "Machine", campaign: "Campaign" };
const SEARCHED = ["model", "target", "where", "task", "precision", "machine", "kind", "error_class", "error_message", "campaign", "verdict"];

export const facetText = (value) => (value === null || value === undefined ? "" : String(value));

export function keepRows(rows, facets, search) {
  const words = search.toLowerCase().split(/\s+/).filter(Boolean);
  const chosen = Object.entries(facets).filter(([, values]) => values.length > 0);
  return rows.filter((row) =>
    chosen.every(([name, values]) => !(name in row) || values.includes(facetText(row[name])))
    && (words.length === 0 || hasWords(row, words)));
}

function hasWords(row, words) {
  const everything = SEARCHED.map((name) => facetText(row[name])).join(" ").toLowerCase();
  return words.every((word) => everything.includes(word));
}

/** The values of a facet among rows, or the `known` ones where rows were left out, with how many rows have each; numbers in their order. */
export function facetValues(rows, name, known) {
  const counts = new Map(Object.entries(known ?? {}));
  if (!known) for (const row of rows) if (name in row) counts.set(facetText(row[name]), (counts.get(facetText(row[name])) ?? 0) + 1);
  return [...counts].sort(([a], [b]) => a.localeCompare(b, "en", { numeric: true }));
}

export function sortRows(rows, sort) {
  if (!sort) return rows;
  const descending = sort.startsWith("-");
  const name = descending ? sort.slice(1) : sort;
  const empty = (value) => value === null || value === undefined || value === "";
  return [...rows].sort((a, b) => {
    const [x, y] = [a[name], b[name]];
    if (empty(x) || empty(y)) return Number(empty(x)) - Number(empty(y)); // what is not there comes last either way
    const order = typeof x === "number" && typeof y === "number" ? x - y : String(x).localeCompare(String(y), "en", { numeric: true });
    return descending ? -order : order;
  });
}
