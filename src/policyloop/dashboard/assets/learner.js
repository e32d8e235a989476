// The learner: where it stands, what became of every step, its curves.

import { chart } from "./chart.js";
import { duration, make, percent, whole, write } from "./dom.js";

const view = document.getElementById("learner-view");
const facts = make("dl", { class: "facts wide" });
const ledger = make("table", { class: "ledger" });
const charts = make("div", { class: "charts" });
const problem = make("p", { class: "problem", hidden: true });
view.append(problem, facts, make("div", { class: "columns" }, ledger, charts));
let shown = null, heardAt = 0;

const LEDGER = {
  trained: "trained on", demonstration: "demonstrations", undrawn: "policy's mean, no density", "too-old": "too old for this policy",
  gap: "at a gap", other: "other drivers", damaged: "damaged",
};

function show(titles) {
  if (facts.children.length !== 2 * titles.length) facts.replaceChildren(...titles.flatMap(([title]) => [make("dt", {}, title), make("dd")]));
  titles.forEach(([title, text], i) => { write(facts.children[2 * i], title); write(facts.children[2 * i + 1], text); });
}

function bins(frame) {
  const found = Object.entries(shown.ledger).map(([bin, count]) => [LEDGER[bin] || bin, count]);
  if (frame.unread) found.push(["not read yet", frame.unread]);
  return [...found, ...Object.entries(frame.not_stored).map(([reason, count]) => [`not stored: ${reason}`, count])];
}

export function update(message) {
  shown = message;
  heardAt = performance.now();
  write(problem, message.problem);
  problem.hidden = !message.problem;
  charts.replaceChildren(...message.curves.map(chart));
}

export function tick(frame) {
  if (!shown) return;
  const staleness = Object.entries(frame.staleness), total = staleness.reduce((sum, [, count]) => sum + count, 0);
  show([
    ["Update", `${whole(shown.update)}, ${duration(shown.age_s + (performance.now() - heardAt) / 1000)} ago`],
    ["Policy shipped", shown.version ? `version ${shown.version}` : "none"],
    ["Learned from", `${whole(shown.steps)} policy steps`],
    ["Next update", frame.next_update_s === null ? "unknown" : frame.next_update_s < 1 ? "due" : `in about ${duration(frame.next_update_s)}`],
    ["An update takes", shown.update_s ? `${whole(shown.rollout)} steps, ${duration(shown.update_s)}` : "unknown"],
    ["Staleness, versions", total ? staleness.map(([behind, count]) => `${behind}: ${percent(count / total)}`).join(", ") : "no policy drives"],
  ]);
  const rows = bins(frame), all = rows.reduce((sum, [, count]) => sum + count, 0) || 1;
  if (ledger.rows.length !== rows.length + 1) {
    ledger.replaceChildren(make("caption", {}, "What became of every step"),
      make("thead", {}, make("tr", {}, make("th", { scope: "col" }, "bin"), make("th", { scope: "col" }, "steps"), make("th", { scope: "col" }, "share"))),
      make("tbody", {}, ...rows.map(() => make("tr", {}, make("th", { scope: "row" }), make("td"), make("td")))));
  }
  rows.forEach(([bin, count], i) => [bin, whole(count), percent(count / all)].forEach((text, j) => write(ledger.rows[i + 1].cells[j], text)));
}

