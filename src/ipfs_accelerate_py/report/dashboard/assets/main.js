import { byId, commandBox, element } from "./dom.js";
import { openDetail } from "./detail.js";
import { exportBar } from "./exports.js";
import { drawFigure, library, partOf, plotElement } from "./figure.js";
import { FACETS, FACET_NAMES, facetValues, keepRows, sortRows } from "./filters.js";
import { ignoredParts, meant } from "./ignored.js";
import { recommendView } from "./recommend.js";
import { consoleView } from "./sql.js";
import { ask, isFile, parametersOf } from "./source.js";
import { addressOf, readState, writeState } from "./state.js";
import { rowsTable } from "./table.js";

const ASK_AGAIN_MS = 2000;
const RECOMMEND = { name: "recommend", title: "Where should it run?", question: "Every platform for one model and what you ask of it, ranked with reasons, measured or predicted." };
const SQL = { name: "sql", title: "SQL", question: "Ask the store anything, read-only." };

let state = readState();
let views = [];
let meanings = {};
let answer = null; // of the view that is shown
let version = null; // of the store, as the answer has it
let asked = 0; // the latest question; an earlier one that answers later is not shown
let plot = null;

// --- one view ----------------------------------------------------------------------------------------------------------

async function load() {
  const view = views.find((one) => one.name === state.view);
  const place = byId("view");
  const question = ++asked; // also where nothing is asked: what an earlier view still waits for is not drawn over this one
  markNavigation();
  document.title = `${view?.title ?? "Unknown view"} · dashboard`;
  byId("title").textContent = view?.title ?? "Unknown view";
  byId("question").textContent = view?.question ?? "";
  byId("bar").hidden = !view || view === SQL || view === RECOMMEND;
  byId("note").hidden = true;
  plot = null;
  if (answer?.name !== state.view) answer = null; // nothing of another view is filtered, compared with the address or saved here
  tellIgnored(null);
  if (!view) {
    place.replaceChildren(element("p", { class: "state", role: "alert" }, `There is no view '${state.view}': choose one from the list.${meant(state.view, views.map(({ name }) => name))}`));
    return settle();
  }
  if (view === SQL || view === RECOMMEND) {
    if (view === SQL) consoleView(place, state, (text) => { state.sql = text; writeState(state, false); });
    else recommendView(place, state, (text) => { state.ask = text; writeState(state, false); });
    return settle();
  }
  place.setAttribute("aria-busy", "true");
  if (answer === null) place.replaceChildren(element("p", { class: "state" }, "Reading the store …"));
  try {
    let [told] = await Promise.all([early(view.name), library]);
    if (told.partial && !isFile && parametersOf(state).length) told = await ask(`api/views/${view.name}`, parametersOf(state));
    if (question !== asked) return undefined;
    answer = told;
    version = told.version ?? version;
    show();
  } catch (error) {
    if (question !== asked) return undefined;
    if (answer === null) place.replaceChildren(element("p", { class: "state bad", role: "alert" }, error.message));
    else trouble(error.message);
  }
  return settle();
}

/** The first view is asked for before the list of views is known. */
let first = ["sql", "recommend"].includes(state.view) ? null : { name: state.view, answer: ask(`api/views/${encodeURIComponent(state.view)}`) };
first?.answer.catch(() => {}); // said when it is wanted

function early(name) {
  const found = first?.name === name ? first.answer : ask(`api/views/${name}`);
  first = null;
  return found;
}

function settle() {
  byId("view").setAttribute("aria-busy", "false");
  document.documentElement.dataset.ready = state.view;
}

function show() {
  const rows = sortRows(keepRows(answer.rows, state.facets, state.search), state.sort || (answer.sort ? `${answer.sort[1] ? "-" : ""}${answer.sort[0]}` : ""));
  byId("note").textContent = answer.note;
  byId("note").hidden = !answer.note;
  byId("shown").textContent = `${rows.length.toLocaleString("en")} of ${answer.rows.length.toLocaleString("en")} rows`;
  facets();
  const place = byId("view");
  if (rows.length === 0) {
    plot = null;
    tellIgnored(null);
    place.replaceChildren(...(answer.rows.length === 0 && !parametersOf(state).length ? emptyView() : [element("p", { class: "state" }, "Nothing passes these filters. "), element("button", { type: "button", class: "quiet", on: { click: clear } }, "Clear filters")]));
    return;
  }
  let drawn = null;
  if (answer.figure) {
    drawn = partOf(answer.figure, new Set(rows.map((row) => row.key)), state.page, state.sort ? new Map(rows.map((row, place) => [row.key, place])) : null);
    plot = plotElement(`${answer.title}, as a figure; the table below has the same numbers.`);
  } else plot = null;
  tellIgnored(drawn ? drawn.pages : 1);
  const bar = exportBar(state, answer, rows, drawn ? plot : null);
  const table = rowsTable(answer, rows, { sort: state.sort, command: "command", onOpen: openCell, onSort: (sort) => { state.sort = sort; change(false); byId("view").querySelector(`[data-sort="${sort.replace(/^-/, "")}"]`)?.focus(); } });
  const kinds = [...new Set(rows.map((row) => row.kind).filter(Boolean))];
  place.replaceChildren(bar, ...(drawn ? [element("div", { class: "plotframe", tabindex: "0", role: "region", "aria-label": "Figure" }, plot), pager(drawn)] : []), legend(kinds), table);
  if (drawn) drawNow(drawn, rows);
}

function tellIgnored(pages) {
  const told = ignoredParts(location.hash, location.search, state.view, answer, pages);
  byId("ignored").textContent = told.join(" ");
  byId("ignored").hidden = told.length === 0;
}

function drawNow(drawn, rows) {
  const byKey = new Map(rows.map((row) => [row.key, row]));
  drawFigure(plot, drawn, (key) => { const row = byKey.get(key); if (row?.cell && row.kind !== "predicted") openCell(row.cell); });
}

function pager(drawn) {
  if (drawn.pages === 1) return drawn.told ? element("p", { class: "muted pager" }, drawn.told) : "";
  const step = (label, to) => element("button", { type: "button", class: "quiet", disabled: to < 1 || to > drawn.pages, on: { click: () => { state.page = to; change(false); } } }, label);
  return element("div", { class: "pager" }, step("Previous", drawn.page - 1), element("span", { class: "muted" }, `Figure: ${drawn.told}`), step("Next", drawn.page + 1));
}

function legend(kinds) {
  return kinds.length ? element("ul", { class: "legend" }, ...kinds.map((kind) => element("li", {}, meanings[kind] ?? kind))) : "";
}

function emptyView() {
  return [element("p", { class: "state" }, `${answer.empty.sentence} This fills the view:`), commandBox(answer.empty.command)];
}

// --- filters -----------------------------------------------------------------------------------------------------------

function facets() {
  const place = byId("facets");
  const open = new Set([...place.querySelectorAll("details[open]")].map((one) => one.dataset.facet));
  const active = document.activeElement?.closest?.("#facets") ? document.activeElement.dataset.option ?? document.activeElement.parentNode?.dataset?.facet : null;
  const parts = FACETS.flatMap((name) => {
    const chosen = state.facets[name] ?? [];
    const values = facetValues(answer.rows, name, answer.values?.[name]);
    for (const value of chosen) if (!values.some(([known]) => known === value)) values.push([value, 0]);
    if (values.length < 2 && chosen.length === 0) return [];
    const options = values.map(([value, count]) => element("label", {},
      element("input", { type: "checkbox", name, value, "data-option": `${name}=${value}`, checked: chosen.includes(value), on: { change: (event) => choose(name, value, event.target.checked) } }),
      element("span", {}, value === "" ? "(none)" : value), element("small", {}, String(count))));
    return [element("details", { class: "facet", "data-facet": name, open: open.has(name) },
      element("summary", { class: chosen.length ? "chosen" : "" }, `${FACET_NAMES[name]}: ${chosen.length ? chosen.map((value) => value || "(none)").join(", ") : "all"}`),
      element("div", { class: "options", role: "group", "aria-label": FACET_NAMES[name] }, ...options))];
  });
  place.replaceChildren(...parts);
  if (active) (place.querySelector(`[data-option="${CSS.escape(active)}"]`) ?? place.querySelector(`[data-facet="${CSS.escape(active)}"] summary`))?.focus();
}

function choose(name, value, isChosen) {
  const others = (state.facets[name] ?? []).filter((one) => one !== value);
  state.facets[name] = isChosen ? [...others, value] : others;
  if (state.facets[name].length === 0) delete state.facets[name];
  state.page = 1;
  change(true);
}

function clear() {
  state = { ...state, facets: {}, search: "", page: 1 };
  byId("search").value = "";
  change(true);
}

/** Show the state, after writing it into the address. A view that the server cut short is asked again with its filters. */
function change(filtered) {
  writeState(state, false);
  if (!answer || (filtered && answer.partial && !isFile)) load();
  else show();
  markNavigation();
}

// --- the frame ---------------------------------------------------------------------------------------------------------

function markNavigation() {
  const list = byId("views");
  // Links stay the same elements: one that is replaced between press and release of the mouse gets no click, and loses the focus.
  if (list.children.length !== views.length) list.replaceChildren(...views.map(({ title }) => element("li", {}, element("a", {}, title))));
  list.querySelectorAll("a").forEach((link, place) => {
    const { name } = views[place];
    link.setAttribute("href", addressOf({ ...state, view: name, page: 1, cell: "", sort: "", sql: "", ask: "" }));
    if (name === state.view) link.setAttribute("aria-current", "page");
    else link.removeAttribute("aria-current");
  });
  byId("views").querySelector("[aria-current]")?.scrollIntoView?.({ block: "nearest", inline: "nearest" });
}

function openCell(cell) {
  state.cell = cell;
  writeState(state, true);
  const opener = document.activeElement;
  openDetail(cell, meanings, () => {
    state.cell = "";
    writeState(state, false);
    if (document.activeElement === document.body) opener?.focus?.(); // closing told us late where something else has the focus already
  });
}

function trouble(text) {
  byId("trouble").textContent = text ? `${text} What is shown was read before.` : "";
  byId("trouble").hidden = !text;
}

/** What the store is doing; when it has changed, the view is read again. */
async function watch() {
  let told;
  try {
    told = await ask("api/status");
  } catch (error) {
    trouble(error.message);
    return;
  }
  byId("store").textContent = `${told.store}${told.launches === undefined ? "" : ` · ${told.launches.toLocaleString("en")} launches`}`;
  const waiting = told.waiting ? `, ${told.waiting} waiting to be stored` : "";
  byId("live").textContent = told.file ? "A file: as the store was when it was written" : told.campaign_process ? `A campaign is running (process ${told.campaign_process})${waiting}` : `No campaign is running${waiting}`;
  trouble(told.error);
  if (!told.error && version && told.version !== version && answer) { version = told.version; await load(); }
}

/** Asks again after each answer: two questions at once could be answered in the wrong order. */
function watchOn() {
  setTimeout(async () => { await watch(); watchOn(); }, ASK_AGAIN_MS);
}

function theme() {
  const button = byId("theme");
  const system = matchMedia("(prefers-color-scheme: dark)");
  const dark = () => (document.documentElement.style.colorScheme || (system.matches ? "dark" : "light")) === "dark";
  const paint = () => { button.textContent = dark() ? "Light" : "Dark"; if (plot && answer) show(); };
  button.addEventListener("click", () => { document.documentElement.style.colorScheme = dark() ? "light" : "dark"; paint(); });
  system.addEventListener("change", paint);
  paint();
}

function keyboard(event) {
  if (event.target.matches?.("input, textarea, select") || byId("detail").open || event.ctrlKey || event.metaKey || event.altKey) return;
  const place = views.findIndex((one) => one.name === state.view);
  if (event.key === "/") { event.preventDefault(); byId("search").focus(); }
  else if (event.key === "[" && place > 0) byId("views").querySelectorAll("a")[place - 1].click();
  else if (event.key === "]" && place < views.length - 1) byId("views").querySelectorAll("a")[place + 1].click();
}

async function navigate() {
  const before = state;
  state = readState();
  byId("search").value = state.search;
  if (state.view !== before.view) { await load(); byId("content").focus({ preventScroll: true }); scrollTo(0, 0); }
  else if (answer && (!answer.partial || isFile)) show();
  else await load(); // the console, a recommendation, an unknown view, or rows that the server chose by the filters
  if (state.cell && state.cell !== before.cell) openCell(state.cell);
  else if (!state.cell && byId("detail").open) byId("detail").close();
}

async function start() {
  theme();
  byId("bar").addEventListener("submit", (event) => event.preventDefault());
  byId("search").value = state.search;
  byId("search").addEventListener("input", (event) => { state.search = event.target.value; state.page = 1; change(true); });
  byId("clear").addEventListener("click", clear);
  byId("link").addEventListener("click", () => navigator.clipboard.writeText(location.href).then(
    () => { byId("link").textContent = "Copied"; }, () => { byId("link").textContent = "Copy the address above"; }));
  byId("detail").addEventListener("click", (event) => { if (event.target === byId("detail")) byId("detail").close(); });
  addEventListener("popstate", navigate);
  addEventListener("keydown", keyboard);
  addEventListener("resize", () => { clearTimeout(start.resized); start.resized = setTimeout(() => { if (plot && answer) show(); }, 150); });
  try {
    const [listed] = await Promise.all([ask("api/views"), watch()]); // the head has its texts before anything below can be clicked
    views = [...listed.views, RECOMMEND, SQL];
    meanings = listed.meanings;
  } catch (error) {
    byId("view").replaceChildren(element("p", { class: "state bad", role: "alert" }, error.message));
    return settle();
  }
  await load();
  if (state.cell) openCell(state.cell);
  if (!isFile) watchOn();
  return undefined;
}

start();
