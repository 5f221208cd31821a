import { byId, commandBox, element, shortText } from "./dom.js";
import { drawFigure, plotElement } from "./figure.js";
import { ask } from "./source.js";
import { plainTable } from "./table.js";

let opened = 0; // the latest question; an earlier one that answers later is not shown

/** Open the details of a cell: the command that repeats it, its launches, what went wrong, every iteration, and where it ran. */
export async function openDetail(cell, meanings, onClose) {
  const dialog = byId("detail");
  const close = element("button", { type: "button", class: "quiet", on: { click: () => dialog.close() } }, "Close");
  dialog.onclose = onClose;
  dialog.replaceChildren(element("div", { class: "bar" }, element("h2", { id: "detail-title" }, "Reading …"), close));
  if (!dialog.open) dialog.showModal();
  const question = ++opened;
  let told;
  try {
    told = await ask(`api/cells/${encodeURIComponent(cell)}`);
  } catch (error) {
    if (question !== opened || !dialog.open) return;
    byId("detail-title").textContent = "Not to be had";
    dialog.append(element("p", { class: "state", role: "alert" }, error.message));
    return;
  }
  if (question !== opened || !dialog.open) return;
  const plot = told.figure ? plotElement("Every iteration of every launch, in order.") : null;
  dialog.replaceChildren(
    element("div", { class: "bar" }, element("div", {}, element("h2", { id: "detail-title" }, told.title), element("small", {}, told.shape)), close),
    ...headline(told.row, meanings),
    element("h3", {}, "Repeat it"), commandBox(told.command),
    ...problems(told.launches),
    element("h3", {}, "Launches"), launches(told.launches),
    ...(plot ? [element("h3", {}, "Every iteration"), plot] : told.row.samples ? [element("p", { class: "muted" }, "The samples are not in this file, which would be too large: the served dashboard shows them.")] : []),
    element("h3", {}, "Phases, ms"), phases(told.launches),
    element("h3", {}, "Output check"), checks(told.launches),
    element("h3", {}, "Evidence"), ...evidence(told));
  if (plot) drawFigure(plot, { traces: told.figure.data, layout: told.figure.layout });
  close.focus();
}

function headline(row, meanings) {
  const interval = row.low_ms === null ? row.interval : `[${shortText(row.low_ms)}, ${shortText(row.high_ms)}] ms, ${row.interval}`;
  const facts = row.median_ms === null ? [] : [[`${shortText(row.median_ms)} ms`, "median per iteration"], [interval, "interval"]];
  facts.push([`${row.launches_ok} of ${row.launches}`, "launches with samples"]);
  const marks = Object.entries(meanings).filter(([mark]) => row.flags.split(" ").includes(mark));
  return [
    element("p", { class: `badge ${row.kind}` }, meanings[row.kind] ?? row.kind),
    element("div", { class: "figures" }, ...facts.map(([value, name]) => element("div", {}, element("b", {}, value), element("small", {}, name)))),
    marks.length ? element("ul", { class: "warnings" }, ...marks.map(([mark, words]) => element("li", {}, `${mark}: ${words}`))) : "",
  ];
}

function problems(list) {
  const failed = list.filter((launch) => launch.status !== "ok").map((launch) =>
    `launch ${launch.launch_index}: ${launch.error_class ?? launch.status}${launch.error_phase ? ` in ${launch.error_phase}` : ""}: ${launch.error_message ?? ""}`);
  const noise = list.flatMap((launch) => (launch.noise?.warnings ?? []).map((text) => `launch ${launch.launch_index}: ${text}`));
  const told = (title, lines) => (lines.length ? [element("h3", {}, title), element("ul", { class: "warnings" }, ...lines.map((line) => element("li", {}, line)))] : []);
  return [...told("What went wrong", failed), ...told("Noise", noise)];
}

function launches(list) {
  return plainTable(["Launch", "Started, UTC", "Provenance", "Status", "Median, ms", "Iterations", "Stopped by", "Steady", "Host peak, MB", "Device peak, MB"],
    list.map((launch) => [String(launch.launch_index), launch.started_at, launch.provenance, launch.status, launch.median_ms, launch.n_samples, launch.stop_reason,
      launch.steady, megabytes(launch.host_peak_bytes), megabytes(launch.device_peak_bytes)]), "Launches");
}

const megabytes = (value) => (value === null ? null : value / 1e6);

function phases(list) {
  const names = [...new Set(list.flatMap((launch) => Object.keys(launch.phases_ns ?? {})))];
  return plainTable(["Launch", ...names.map((name) => name.replaceAll("_", " "))],
    list.map((launch) => [String(launch.launch_index), ...names.map((name) => (launch.phases_ns?.[name] ?? null) === null ? null : launch.phases_ns[name] / 1e6)]), "Phases, ms");
}

function checks(list) {
  return plainTable(["Launch", "Passed", "Cosine", "Relative error", "Top-1 agreement", "Rule"], list.map((launch) =>
    launch.accuracy_passed === null ? [String(launch.launch_index), "not checked"]
      : [String(launch.launch_index), launch.accuracy_passed, launch.cosine, launch.relative_error, launch.top1_agreement, launch.accuracy_rule]), "Output check");
}

/** Pairs of a path and a text, for whatever facts hold. */
function leaves(value, path = "") {
  if (value === null || typeof value !== "object") return [[path, value === null ? "null" : shortText(value)]];
  if (Array.isArray(value) && value.every((item) => item === null || typeof item !== "object")) return [[path, value.join(", ") || "none"]];
  return Object.entries(value).flatMap(([key, item]) => leaves(item, path ? `${path}.${key}` : key));
}

function evidence(told) {
  const folded = (title, ...content) => element("details", {}, element("summary", {}, title), ...content);
  const distinct = (title, list) => list.filter((one) => Object.keys(one.facts).length).map((one) => {
    const name = list.length > 1 ? `${title}, launch ${one.launches.join(", ")}` : title;
    return folded(name, plainTable(null, leaves(one.facts), name));
  });
  const perLaunch = (title, name) => told.launches.filter((launch) => Object.keys(launch[name] ?? {}).length).map((launch) => {
    const full = `${title}, launch ${launch.launch_index}`;
    return folded(full, plainTable(null, leaves(launch[name]), full));
  });
  const lists = told.launches.filter((launch) => launch.samples_ns?.length).map((launch) => element("div", {},
    element("small", {}, `launch ${launch.launch_index}, clock resolution ${launch.clock_resolution_ns ?? "?"} ns, read back ${launch.bytes_read_back ?? "?"} bytes`),
    element("pre", { tabindex: "0" }, launch.samples_ns.join(" "))));
  return [
    ...distinct("Machine", told.machines), ...distinct("Environment", told.environments), ...perLaunch("What ran", "facts").slice(0, 3), ...perLaunch("Noise before and after", "noise").slice(0, 3),
    folded("Identity", plainTable(["Launch", "Id", "Campaign"], told.launches.map((launch) => [String(launch.launch_index), launch.launch_id, launch.campaign_id]), "Identity")),
    lists.length ? folded("Samples of the steady iterations, ns", ...lists) : "",
  ];
}
