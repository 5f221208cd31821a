import { commandBox, element } from "./dom.js";
import { drawFigure, partOf, plotElement } from "./figure.js";
import { exportBar } from "./exports.js";
import { meant } from "./ignored.js";
import { ask, isFile } from "./source.js";
import { rowsTable } from "./table.js";

const CHOICES = {
  objective: ["latency", "throughput", "memory"],
  mode: ["inference", "training"],
  precision: ["", "float32", "float16", "bfloat16", "int8", "int4"],
};
const NUMBERS = { batch_size: "Batch", sequence_length: "Length, tokens", max_memory_gb: "Memory at most, GB", latency_slo_ms: "Latency at most, ms" };

/** Ask where a model should run. What is asked is in the address, so a link asks it again. */
export function recommendView(place, state, remember) {
  if (isFile) {
    place.replaceChildren(element("p", { class: "state" }, "A file cannot compute a recommendation. The served dashboard can, and so can the command line:"), commandBox("ipfs-accelerate recommend bert"));
    return;
  }
  const asked = new URLSearchParams(state.ask);
  const field = (name, label, input) => element("label", {}, element("span", {}, label), input);
  const options = (name) => element("select", { name }, ...CHOICES[name].map((value) => element("option", { value, selected: asked.get(name) === value }, value || "any")));
  const form = element("form", { class: "ask", "aria-label": "What is asked" },
    field("model", "Model", element("input", { name: "model", required: true, value: asked.get("model") ?? "bert", placeholder: "bert, llama-7b, …" })),
    ...Object.keys(CHOICES).map((name) => field(name, name[0].toUpperCase() + name.slice(1), options(name))),
    ...Object.entries(NUMBERS).map(([name, label]) => field(name, label, element("input", { name, inputmode: "decimal", value: asked.get(name) ?? "" }))),
    element("button", { type: "submit", class: "quiet strong" }, "Recommend"));
  const unknown = unknownIn(asked);
  const note = unknown.length ? element("p", { class: "note", role: "status" }, unknown.join(" ")) : "";
  const result = element("div", { id: "recommended", "aria-live": "polite" });
  const run = async () => {
    const pairs = [...new FormData(form)].filter(([, value]) => value !== "");
    remember(new URLSearchParams(pairs).toString());
    result.replaceChildren(element("p", { class: "state" }, "Weighing …"));
    try {
      showRecommendation(result, await ask("api/recommend", pairs), state);
    } catch (error) {
      result.replaceChildren(element("p", { class: "state bad", role: "alert" }, error.message));
    }
  };
  form.addEventListener("submit", (event) => { event.preventDefault(); run(); });
  place.replaceChildren(note, form, result);
  if (state.ask) run();
}

/** What a question in the address asks that this form cannot. */
function unknownIn(asked) {
  const known = ["model", ...Object.keys(CHOICES), ...Object.keys(NUMBERS)];
  return [...new Set(asked.keys())].flatMap((name) => {
    if (!known.includes(name)) return [`The address asks for '${name}', which no recommendation takes.${meant(name, known)}`];
    const wrong = CHOICES[name] && !CHOICES[name].includes(asked.get(name));
    return wrong ? [`'${asked.get(name)}' is no ${name}: ${CHOICES[name][0] || "any"} is asked. It takes ${CHOICES[name].filter(Boolean).join(", ")}.`] : [];
  });
}

function showRecommendation(result, told, state) {
  const plot = told.figure ? plotElement("Latency against memory of every candidate; the table has the same numbers.") : null;
  const reasons = [].concat(told.explanation ?? []);
  const next = [].concat(told.measure_next ?? []);
  const inFeasibleOrder = [...told.rows].sort((a, b) => Number(b.feasible) - Number(a.feasible) || a.key - b.key);
  result.replaceChildren(
    element("h3", {}, told.title),
    element("ul", { class: "warnings" }, ...reasons.map((text) => element("li", {}, text))),
    ...(next.length ? [element("h3", {}, "These runs would decide"), ...next.map((text) => commandBox(text))] : []),
    exportBar(state, told, inFeasibleOrder, plot, ["csv", "json"]),
    ...(plot ? [element("div", { class: "plotframe", tabindex: "0", role: "region", "aria-label": "Figure" }, plot)] : []),
    rowsTable(told, inFeasibleOrder, { sort: "" }));
  if (plot) drawFigure(plot, partOf(told.figure, new Set(told.rows.map((row) => row.key)), 1));
}
