"use strict";
// Filters, figures and the details of a run. Texts reach the page by textContent only; figures were drawn up in Python.
(() => {
  const report = JSON.parse(document.getElementById("data").textContent);
  const form = document.getElementById("filters");
  const dialog = document.getElementById("detail");
  const plots = [...document.querySelectorAll(".plot")];
  const drawn = new Set();
  let visible = new Set(Object.keys(report.cells));

  // --- building elements -------------------------------------------------------------------------------------------

  function element(tag, options = {}, ...children) {
    const made = document.createElement(tag);
    for (const [name, value] of Object.entries(options)) {
      if (name === "on") Object.entries(value).forEach(([event, handler]) => made.addEventListener(event, handler));
      else made.setAttribute(name, value);
    }
    made.append(...children.filter((child) => child !== null && child !== undefined));
    return made;
  }

  /** Columns without a value in any row are left out. */
  function table(head, rows) {
    const width = Math.max(...rows.map((row) => row.length));
    const filled = [...Array(width).keys()].filter((column) => rows.some((row) => !["", null, undefined].includes(row[column]?.number ?? row[column])));
    rows = rows.map((row) => filled.map((column) => row[column]));
    head = head && filled.map((column) => head[column]);
    const isNumber = (value) => typeof value === "number" || value?.number !== undefined;
    const cells = (row, tag) => row.map((value, column) => {
      const number = isNumber(value) || rows.some((other) => isNumber(other[column]));
      const text = value === null || value === undefined ? "" : String(value.number ?? value);
      return element(column === 0 ? "th" : tag, number && column > 0 ? { class: "number" } : {}, text);
    });
    return element("div", { class: "scroll" }, element("table", {},
      head ? element("thead", {}, element("tr", {}, ...cells(head, "th"))) : null,
      element("tbody", {}, ...rows.map((row) => element("tr", {}, ...cells(row, "td"))))));
  }

  const digits = (value) => value === null || value === undefined ? "" : value.toLocaleString("en", { maximumSignificantDigits: 4 });
  const number = (value, scale = 1) => ({ number: value === null || value === undefined ? "" : digits(value * scale) });

  /** Every leaf of a nested value as a row: "gpu.limits.x", value. */
  function leaves(value, path = "") {
    if (value === null || typeof value !== "object") return [[path, value === null ? "not told" : String(value)]];
    if (Array.isArray(value) && value.every((item) => item === null || typeof item !== "object")) return [[path, value.join(", ") || "none"]];
    return Object.entries(value).flatMap(([key, item]) => leaves(item, path ? `${path}.${key}` : key));
  }

  // --- figures -----------------------------------------------------------------------------------------------------

  /** Keep item i of every list that is as long as the list of ids, at any depth. */
  function keep(value, length, chosen) {
    if (Array.isArray(value)) return value.length === length ? value.filter((_, index) => chosen[index]) : value;
    if (value === null || typeof value !== "object") return value;
    return Object.fromEntries(Object.entries(value).map(([key, item]) => [key, keep(item, length, chosen)]));
  }

  function inks() {
    const line = getComputedStyle(document.getElementById("theme")).borderBottomColor;
    return { ink: getComputedStyle(document.body).color, line };
  }

  function draw(plot) {
    const figure = report.figures[plot.id];
    const traces = figure.data
      .map((trace) => keep(trace, trace.customdata.length, trace.customdata.map((id) => visible.has(id))))
      .filter((trace) => trace.customdata.length > 0);
    const card = plot.closest(".card");
    card.hidden = traces.length === 0;
    card.closest("section").hidden = ![...card.parentNode.children].some((other) => !other.hidden);
    if (card.hidden) return;
    const all = new Set(figure.data.flatMap((trace) => trace.y)).size;
    const shown = new Set(traces.flatMap((trace) => trace.y)).size;
    const { ink, line } = inks();
    const layout = structuredClone(figure.layout);
    layout.height -= Math.round((layout.height - 120) * (1 - shown / all));
    layout.font.color = ink;
    layout.xaxis.gridcolor = line;
    layout.yaxis.categoryarray = layout.yaxis.categoryarray.filter((name) => traces.some((trace) => trace.y.includes(name)));
    if (plot.clientWidth < 460) narrow(layout, traces);
    Plotly.react(plot, traces, layout, { displayModeBar: false, responsive: true });
    if (!drawn.has(plot)) plot.on("plotly_click", (event) => open(event.points[0].customdata));
    drawn.add(plot);
  }

  function narrow(layout, traces) {
    layout.font.size = 11;
    layout.height *= 1.3;
    const broken = (name) => name.replace(" · ", "<br>");
    layout.yaxis.categoryarray = layout.yaxis.categoryarray.map(broken);
    for (const trace of traces) trace.y = trace.y.map(broken);
  }

  const sight = new IntersectionObserver((entries) => entries.filter((entry) => entry.isIntersecting).forEach((entry) => {
    sight.unobserve(entry.target);
    draw(entry.target);
  }), { rootMargin: "400px" });

  // --- filters -----------------------------------------------------------------------------------------------------

  function applyFilters() {
    const wanted = Object.entries(Object.fromEntries(new FormData(form))).filter(([, value]) => value !== "");
    const matches = (cell) => wanted.every(([name, value]) => cell.filters[name] === value);
    visible = new Set(Object.keys(report.cells).filter((id) => matches(report.cells[id])));
    document.querySelectorAll("tr[data-cell]").forEach((row) => { row.hidden = !visible.has(row.dataset.cell); });
    filterBest(wanted);
    filterGrid();
    plots.forEach((plot) => {
      if (drawn.has(plot)) { draw(plot); return; }
      plot.closest(".card").hidden = !report.figures[plot.id].data.some((trace) => trace.customdata.some((id) => visible.has(id)));
    });
    document.querySelectorAll("section").forEach((section) => {
      const cards = [...section.querySelectorAll(".card")];
      if (cards.length) section.hidden = cards.every((card) => card.hidden);
    });
    document.getElementById("shown").textContent = `${visible.size} of ${Object.keys(report.cells).length} cells`;
  }

  /** Who is best is decided over all targets, so only what belongs to the workload hides a row. */
  function filterBest(wanted) {
    const ofWorkload = wanted.filter(([name]) => name === "model" || name === "precision");
    document.querySelectorAll("#best tr[data-model]").forEach((row) => {
      const cell = Object.values(report.cells).find((one) => one.model === row.dataset.model);
      row.hidden = !ofWorkload.every(([name, value]) => cell.filters[name] === value);
    });
  }

  function filterGrid() {
    const grid = document.querySelector(".grid");
    grid.querySelectorAll("button.tile").forEach((tile) => tile.classList.toggle("off", !visible.has(tile.dataset.cell)));
    const alive = (cells) => cells.some((cell) => cell.querySelector("button.tile:not(.off)"));
    const rows = [...grid.tBodies[0].rows];
    rows.forEach((row) => { row.hidden = !alive([...row.cells]); });
    [...grid.tHead.rows[0].cells].slice(1).forEach((head, index) => {
      const column = rows.map((row) => row.cells[index + 1]);
      head.hidden = !alive(column);
      column.forEach((cell) => { cell.hidden = head.hidden; });
    });
    const columns = grid.tHead.rows[0].querySelectorAll("th:not([hidden])").length;
    grid.style.minWidth = `${140 + 104 * columns}px`;
    grid.style.maxWidth = `${140 + 180 * columns}px`;
  }

  // --- details of a run --------------------------------------------------------------------------------------------

  function open(id) {
    const cell = report.cells[id];
    const close = element("button", { type: "button", class: "quiet", on: { click: () => dialog.close() } }, "Close");
    const title = element("div", {}, element("h2", { id: "detail-title" }, `${cell.model} on ${cell.target}`), element("small", {}, cell.shape));
    const plot = element("div", { class: "plot", role: "img", "aria-label": "Every iteration of every launch; the list is below." });
    dialog.replaceChildren(
      element("div", { class: "bar" }, title, close),
      ...headline(cell),
      element("h3", {}, "Repeat it"), command(cell.command),
      ...problems(cell),
      element("h3", {}, "Launches"), launches(cell),
      ...(cell.median === null ? [] : [element("h3", {}, "Every iteration"), plot]),
      element("h3", {}, "Phases, ms"), phases(cell),
      element("h3", {}, "Output check"), accuracy(cell),
      ...evidence(cell));
    dialog.showModal();
    dialog.scrollTop = 0;
    if (cell.median !== null) samplesPlot(plot, cell);
  }

  function headline(cell) {
    const facts = cell.median === null ? [] : [["median per iteration", cell.median], ["95 % interval", cell.interval]];
    const ended = cell.launches.filter((launch) => launch.median_ms !== null).length;
    facts.push(["launches with samples", `${ended} of ${cell.launches.length}`]);
    return [
      element("p", { class: `badge ${cell.kind}` }, cell.meaning),
      element("div", { class: "figures" }, ...facts.map(([name, value]) => element("div", {}, element("b", {}, value), element("small", {}, name)))),
      cell.flags.length ? element("ul", { class: "warnings" }, ...cell.flags.map(([mark, words]) => element("li", {}, `${mark}: ${words}`))) : "",
    ];
  }

  function command(text) {
    const copy = element("button", { type: "button", class: "quiet" }, "Copy");
    copy.addEventListener("click", () => navigator.clipboard.writeText(text).then(() => { copy.textContent = "Copied"; }, () => { copy.textContent = "Select and copy by hand"; }));
    return element("div", { class: "command" }, element("pre", { tabindex: "0" }, text), copy);
  }

  function problems(cell) {
    const failed = cell.launches.filter((launch) => launch.status !== "ok");
    const noisy = cell.launches.flatMap((launch) => (launch.noise?.warnings ?? []).map((text) => `launch ${launch.launch_index}: ${text}`));
    const list = (title, lines) => lines.length ? [element("h3", {}, title), element("ul", { class: "warnings" }, ...lines.map((line) => element("li", {}, line)))] : [];
    return [
      ...list("What went wrong", failed.map((launch) =>
        `launch ${launch.launch_index}: ${launch.error_class ?? launch.status}${launch.error_phase ? ` in ${launch.error_phase}` : ""}: ${launch.error_message ?? ""}`)),
      ...list("Noise", noisy),
    ];
  }

  function launches(cell) {
    const middle = (values) => number(values?.length ? [...values].sort((a, b) => a - b)[Math.floor(values.length / 2)] : null, 1e-6);
    const simulated = (launch) => launch.provenance === "measured" ? "" : ` (${launch.provenance})`;
    return table(
      ["Launch", "Started, UTC", "Status", "Median, ms", "First token, ms", "Per token, ms", "Iterations", "Stopped by", "Steady", "Host peak, MB", "Device peak, MB"],
      cell.launches.map((launch) => [
        String(launch.launch_index), String(launch.started_at).slice(0, 19).replace("T", " "), `${launch.status}${simulated(launch)}`, number(launch.median_ms),
        middle(launch.first_token_ns), middle(launch.per_token_ns), number(launch.samples_ns.length), launch.stop_reason,
        launch.steady === null ? "" : launch.steady ? "yes" : "no", number(launch.host_peak_bytes, 1e-6), number(launch.device_peak_bytes, 1e-6)]));
  }

  function phases(cell) {
    const names = [...new Set(cell.launches.flatMap((launch) => Object.keys(launch.phases_ns ?? {})))];
    return table(["Launch", ...names.map((name) => name.replace("_", " "))],
      cell.launches.map((launch) => [String(launch.launch_index), ...names.map((name) => number(launch.phases_ns?.[name], 1e-6))]));
  }

  function accuracy(cell) {
    return table(["Launch", "Passed", "Cosine", "Relative error", "Top-1 agreement", "Rule"], cell.launches.map((launch) => {
      const check = launch.accuracy;
      if (!check) return [String(launch.launch_index), "not checked"];
      return [String(launch.launch_index), check.passed ? "yes" : "no", { number: check.cosine ?? "" }, { number: check.relative_error ?? "" }, { number: check.top1_agreement ?? "" }, check.rule];
    }));
  }

  /** Nodes by provider, noise, facts, machine and environment (as often as they differ), and the samples themselves. */
  function evidence(cell) {
    const groups = [["What ran", "facts"], ["Nodes by provider", "coverage"], ["Machine", "machine"], ["Environment", "environment"], ["Noise before and after", "noise"]];
    const folded = (title, ...content) => element("details", {}, element("summary", {}, title), ...content);
    const parts = groups.flatMap(([title, name]) => {
      const different = new Map();
      for (const launch of cell.launches) {
        const value = typeof launch[name] === "string" ? report.shared[launch[name]] : launch[name];
        if (value === null || value === undefined || Object.keys(value).length === 0) continue;
        const key = JSON.stringify(value);
        different.set(key, [...(different.get(key) ?? []), launch.launch_index]);
      }
      return [...different].map(([key, indices]) =>
        folded(different.size > 1 ? `${title}, launch ${indices.join(", ")}` : title, table(null, leaves(JSON.parse(key)))));
    });
    const lists = cell.launches.filter((launch) => launch.samples_ns.length).map((launch) =>
      element("div", {}, element("small", {}, `launch ${launch.launch_index}, clock resolution ${launch.clock_resolution_ns} ns, read back ${launch.bytes_read_back ?? "?"} bytes`),
        element("pre", {}, launch.samples_ns.join(" "))));
    const identities = cell.launches.map((launch) => [String(launch.launch_index), launch.launch_id, launch.spec_hash, launch.campaign_id]);
    return [element("h3", {}, "Evidence"), ...parts,
      folded("Identity", table(["Launch", "Id", "Spec", "Campaign"], identities)),
      lists.length ? folded("Samples of the steady iterations, ns", ...lists) : ""];
  }

  function samplesPlot(plot, cell) {
    const { ink, line } = inks();
    const colours = ["#3f7fd6", "#c8741a", "#2a9583", "#8f6cc4", "#d1495b", "#868b94"];
    const symbols = ["circle", "diamond", "square", "triangle-up", "cross", "star"];
    const ended = cell.launches.filter((launch) => launch.samples_ns.length);
    const traces = ended.map((launch, index) => {
      const times = [...launch.warm_up_ns, ...launch.samples_ns];
      const warm = launch.warm_up_ns.length;
      return {
        type: "scatter", mode: "markers", name: `${launch.provenance === "measured" ? "" : `${launch.provenance} `}launch ${launch.launch_index}`,
        x: times.map((_, place) => place - warm), y: times.map((value) => value / 1e6),
        marker: { size: 6, opacity: 0.75, color: colours[index % 6], symbol: times.map((_, place) => symbols[index % 6] + (place < warm ? "-open" : "")) },
        hovertemplate: "iteration %{x}: %{y:.4g} ms",
      };
    });
    const axis = { gridcolor: line, zeroline: false, automargin: true };
    Plotly.newPlot(plot, traces, {
      height: 320, margin: { l: 8, r: 8, t: 36, b: 8 }, paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)",
      font: { family: getComputedStyle(document.body).fontFamily, size: 12, color: ink }, legend: { orientation: "h", y: 1, yanchor: "bottom" },
      xaxis: { ...axis, title: { text: "iteration; below 0: warm-up (open marks)" } }, yaxis: { ...axis, title: { text: "milliseconds" }, rangemode: "tozero" },
    }, { displayModeBar: false, responsive: true });
  }

  // --- start -------------------------------------------------------------------------------------------------------

  function theme() {
    const button = document.getElementById("theme");
    const system = matchMedia("(prefers-color-scheme: dark)");
    const dark = () => (document.documentElement.style.colorScheme || (system.matches ? "dark" : "light")) === "dark";
    const show = () => { button.textContent = dark() ? "Light" : "Dark"; drawn.forEach(draw); };
    button.hidden = false;
    button.setAttribute("aria-label", "Switch between light and dark");
    button.addEventListener("click", () => { document.documentElement.style.colorScheme = dark() ? "light" : "dark"; show(); });
    system.addEventListener("change", show);
    show();
  }

  theme();
  if (form) {
    form.hidden = false;
    form.addEventListener("change", applyFilters);
    form.addEventListener("reset", () => setTimeout(applyFilters));
    applyFilters();
    plots.forEach((plot) => sight.observe(plot));
    addEventListener("beforeprint", () => plots.forEach(draw));
    document.querySelectorAll("[data-cell]").forEach((opener) => {
      opener.addEventListener("click", () => open(opener.dataset.cell));
      if (opener.tagName === "TR") opener.addEventListener("keydown", (event) => {
        if (event.key !== "Enter") return;
        event.preventDefault(); // else the same key presses the dialog's first button
        open(opener.dataset.cell);
      });
    });
    dialog.addEventListener("click", (event) => { if (event.target === dialog) dialog.close(); });
    const run = location.hash.match(/^#run=([0-9a-f]+)$/)?.[1]; // a link to the launches of one spec
    const linked = run && Object.keys(report.cells).find((id) => id.startsWith(run));
    if (linked) open(linked);
  }
  document.documentElement.dataset.ready = "true";
})();
