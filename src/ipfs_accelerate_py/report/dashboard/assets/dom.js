/** An element with attributes and children. Texts are set as texts, so that a name from outside is never markup. */
export function element(tag, attributes = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name === "on") for (const [event, listener] of Object.entries(value)) made.addEventListener(event, listener);
    else if (value === true) made.setAttribute(name, "");
    else if (value !== false && value !== null && value !== undefined) made.setAttribute(name, value);
  }
  made.append(...children.filter((child) => child !== null && child !== undefined && child !== ""));
  return made;
}

export const byId = (id) => document.getElementById(id);

/** A number as people read it: four significant digits. */
export function shortNumber(value) {
  if (!Number.isFinite(value)) return "";
  if (Number.isInteger(value)) return value.toLocaleString("en");
  const size = Math.abs(value);
  if (size !== 0 && (size < 1e-3 || size >= 1e7)) return value.toExponential(2);
  return Number(value.toPrecision(4)).toLocaleString("en", { maximumFractionDigits: 6 });
}

export function shortText(value) {
  if (value === null || value === undefined) return "";
  if (typeof value === "number") return shortNumber(value);
  if (typeof value === "boolean") return value ? "yes" : "no";
  if (typeof value === "object") return JSON.stringify(value);
  const text = String(value);
  return /^\d{4}-\d\d-\d\d[ T]\d\d:\d\d:\d\d/.test(text) ? text.slice(0, 19).replace("T", " ") : text;
}

/** A button that copies a text, and says whether it could. */
export function copyButton(label, text) {
  const button = element("button", { type: "button", class: "quiet" }, label);
  button.addEventListener("click", () => navigator.clipboard.writeText(typeof text === "function" ? text() : text).then(
    () => { button.textContent = "Copied"; }, () => { button.textContent = "Select and copy by hand"; }));
  return button;
}

export function commandBox(text) {
  return element("div", { class: "command" }, element("pre", { tabindex: "0" }, text), copyButton("Copy", text));
}
