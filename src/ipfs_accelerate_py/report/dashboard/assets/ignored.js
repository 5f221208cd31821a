import { FACETS, FACET_NAMES } from "./filters.js";

// What an address may name: facets may be repeated, the others are given once.
const ONCE = ["view", "search", "sort", "page", "cell", "sql", "ask"];

/** The known name that is fewest edits away, where at most half of the letters differ. */
export function nearestName(name, known) {
  const distance = (from, to) => {
    let last = Array.from({ length: to.length + 1 }, (_, place) => place);
    for (let at = 1; at <= from.length; at++) {
      const next = [at];
      for (let place = 1; place <= to.length; place++) next.push(Math.min(last[place] + 1, next[place - 1] + 1, last[place - 1] + Number(from[at - 1] !== to[place - 1])));
      last = next;
    }
    return last[to.length];
  };
  const [best] = known.map((one) => [distance(name.toLowerCase(), one.toLowerCase()), one]).sort(([a], [b]) => a - b);
  return best && best[0] <= Math.max(name.length, best[1].length) / 2 ? best[1] : null;
}

export const meant = (name, known) => { const near = nearestName(name, known); return near ? ` Did you mean ${near}?` : ""; };

/** A sentence for each part of an address that changes nothing in what is shown, so that a link never does less than it says in silence.
 *  `answer` and `pages` are of the view that is shown, null where it has neither. */
export function ignoredParts(hash, query, view, answer, pages) {
  const given = new URLSearchParams(hash.slice(1));
  const told = [];
  if (query.length > 1) told.push(`What stands after ? in the address ('${query.slice(1)}') changes nothing: views and filters stand after #.`);
  for (const name of new Set(given.keys())) {
    if (!ONCE.includes(name) && !FACETS.includes(name)) told.push(`The address asks for '${name}', which this page does not know.${meant(name, [...ONCE, ...FACETS])}`);
    else if (ONCE.includes(name) && given.getAll(name).length > 1) told.push(`The address gives '${name}' ${given.getAll(name).length} times: the first one counts.`);
  }
  for (const name of ["sql", "ask"]) {
    const owner = { sql: "sql", ask: "recommend" }[name];
    if (given.get(name) && view !== owner) told.push(`'${name}' in the address belongs to the view '${owner}', not to this one.`);
  }
  if (answer) told.push(...ofView(given, answer, pages));
  return told;
}

function ofView(given, answer, pages) {
  const told = [];
  const columns = answer.columns.map(({ key }) => key);
  const sort = (given.get("sort") ?? "").replace(/^-/, "");
  if (sort && !columns.includes(sort)) told.push(`This view has no column '${sort}' to sort by.${meant(sort, columns)}`);
  for (const name of FACETS) {
    if (given.has(name) && answer.rows.length > 0 && !answer.rows.some((row) => name in row)) told.push(`${FACET_NAMES[name]} filters nothing here: this view's rows do not have it.`);
  }
  const page = given.get("page") ?? "1";
  if (!/^[1-9]\d*$/.test(page)) told.push(`'${page}' is no page: the first one is shown.`);
  else if (pages !== null && Number(page) > pages) told.push(`There is no page ${page}: ${pages === 1 ? "there is one" : `the last one, ${pages}, is shown`}.`);
  return told;
}
