// Elements and numbers. What comes from a robot only ever becomes text, never markup.

export function make(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (value === true) element.setAttribute(name, "");
    else if (value !== false && value !== null) element.setAttribute(name, value);
  }
  element.append(...children);
  return element;
}

export function write(element, text) {
  if (element.textContent !== text) element.textContent = text;
}

export function name(text) {
  return make("bdi", { class: "name", title: text }, text);
}

const grouped = new Intl.NumberFormat("en", { maximumFractionDigits: 0 });

export const whole = (value) => grouped.format(value);

export function number(value) {
  const size = Math.abs(value);
  if (size >= 1000) return whole(value);
  return size >= 100 ? value.toFixed(0) : size >= 1 ? value.toFixed(2) : size >= 0.001 || size === 0 ? value.toFixed(3) : value.toExponential(1);
}

export const milliseconds = (value) => `${value >= 100 ? value.toFixed(0) : value.toFixed(1)} ms`;

export const percent = (share) => `${(100 * share).toFixed(share < 0.1 ? 1 : 0)} %`;

export function duration(seconds) {
  if (seconds === null || !Number.isFinite(seconds)) return "unknown";
  if (seconds < 10) return `${seconds.toFixed(1)} s`;
  if (seconds < 120) return `${seconds.toFixed(0)} s`;
  if (seconds < 7200) return `${(seconds / 60).toFixed(0)} min`;
  return seconds < 172800 ? `${(seconds / 3600).toFixed(1)} h` : `${(seconds / 86400).toFixed(0)} days`;
}

export function bytes(size) {
  return size < 1e6 ? `${(size / 1e3).toFixed(0)} kB` : size < 1e9 ? `${(size / 1e6).toFixed(1)} MB` : `${(size / 1e9).toFixed(2)} GB`;
}

export async function order(path, content) {
  const answer = await fetch(path, {
    method: "POST",
    headers: { "Content-Type": "application/json" },
    body: JSON.stringify(content),
    signal: AbortSignal.timeout(4000),
  });
  const text = await answer.text();
  if (answer.ok) return JSON.parse(text);
  let said = text.slice(0, 200);
  try {
    const { error, remedy } = JSON.parse(text);
    said = remedy ? `${error} (${remedy})` : error;
  } catch {
    said = answer.status === 401 ? "the session has ended: load the page again and log in" : said;
  }
  throw new Error(said);
}
