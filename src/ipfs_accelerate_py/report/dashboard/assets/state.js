import { FACETS } from "./filters.js";

/** What the page shows is in its address, so that a link or a bookmark shows it again: #view=matrix&platform=cpu&sort=-median_ms. */
export function readState() {
  const given = new URLSearchParams(location.hash.slice(1));
  const facets = {};
  for (const name of FACETS) if (given.has(name)) facets[name] = given.getAll(name);
  return {
    view: given.get("view") ?? "matrix", search: given.get("search") ?? "", sort: given.get("sort") ?? "",
    page: Math.max(1, Number.parseInt(given.get("page") ?? "1", 10) || 1), cell: given.get("cell") ?? "", sql: given.get("sql") ?? "", ask: given.get("ask") ?? "", facets,
  };
}

export function addressOf(state) {
  const told = new URLSearchParams({ view: state.view });
  for (const [name, values] of Object.entries(state.facets)) for (const value of values) told.append(name, value);
  for (const name of ["search", "sort", "cell", "sql", "ask"]) if (state[name]) told.set(name, state[name]);
  if (state.page > 1) told.set("page", String(state.page));
  return `#${told}`;
}

/** Write the state into the address; a change of view or of what is open is a step that the back button undoes. */
export function writeState(state, step) {
  const address = addressOf(state);
  if (address === location.hash) return;
  if (step) history.pushState(null, "", address);
  else history.replaceState(null, "", address);
}
