import { element } from "./dom.js";
import { figureFile } from "./figure.js";
import { isFile, parametersOf, withQuery } from "./source.js";

export function save(name, content, type) {
  const address = URL.createObjectURL(content instanceof Blob ? content : new Blob([content], { type }));
  const link = element("a", { href: address, download: name });
  document.body.append(link);
  link.click();
  link.remove();
  setTimeout(() => URL.revokeObjectURL(address), 60_000); // a slow machine begins to save late
}

export function toCsv(columns, rows) {
  const quoted = (value) => {
    const text = value === null || value === undefined ? "" : typeof value === "object" ? JSON.stringify(value) : String(value);
    return /[",\n\r]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text;
  };
  return [columns.join(","), ...rows.map((row) => columns.map((name) => quoted(row[name])).join(","))].join("\n") + "\n";
}

/** Buttons for what is shown: its rows, filtered and sorted, as CSV or JSON; as Parquet from the server, and all of them where the page has
 *  only the first ones; its figure as PNG or SVG. */
export function exportBar(state, answer, rows, plot, formats = ["csv", "json", "parquet"]) {
  const columns = answer.columns.map(({ key }) => key);
  const name = (ending) => `${answer.name}.${ending}`;
  const button = (label, act) => element("button", { type: "button", class: "quiet", "data-export": label.toLowerCase(), on: { click: act } }, label);
  const whole = () => rows.map((row) => Object.fromEntries(columns.map((column) => [column, row[column] ?? null])));
  const fromServer = (label) => element("a", { class: "quiet", "data-export": label.toLowerCase(), download: name(label.toLowerCase()),
    href: withQuery(`api/views/${answer.name}`, [...parametersOf(state), ["limit", "0"], ["format", label.toLowerCase()]]) }, label);
  const cut = answer.partial && !isFile;
  const parts = [
    cut ? fromServer("CSV") : button("CSV", () => save(name("csv"), toCsv(columns, rows), "text/csv")),
    cut ? fromServer("JSON") : button("JSON", () => save(name("json"), JSON.stringify(whole(), null, 1), "application/json")),
    !formats.includes("parquet") ? "" : isFile
      ? element("button", { type: "button", class: "quiet", disabled: true, title: "Parquet is written by the served dashboard: ipfs-accelerate dashboard" }, "Parquet")
      : fromServer("Parquet"),
  ];
  if (plot) for (const format of ["png", "svg"]) parts.push(button(format.toUpperCase(), async () => save(name(format), await figureFile(plot, format))));
  return element("div", { class: "exports", role: "group", "aria-label": "Save what is shown" }, ...parts.filter(Boolean));
}
