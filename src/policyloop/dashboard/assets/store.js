// The store: every version, who vouches for it, what became of it; activate one, or go back.

import { ask } from "./dialog.js";
import { make, name, order, write } from "./dom.js";

const view = document.getElementById("store-view");
const says = make("p", { class: "says", role: "alert" });
const list = make("div", { class: "versions" });
const head = make("p", { class: "chips" });
view.append(head, says, list);

async function change(content, title, text, typed, button) {
  const confirm = await ask(title, text, typed, button);
  if (confirm === null) return;
  write(says, "");
  try {
    await order("store", { ...content, confirm });
  } catch (error) {
    write(says, `Nothing was changed: ${error.message}`);
  }
}

const numberOf = (version) => String(Number(version.split("-")[0]));

function activate(version) {
  const text = `Robots that follow ${version.name} load it beside the policy that drives, and it must prove itself. It is ${version.state}, ${version.signature}.`;
  return change({ verb: "activate", version: version.name }, `Activate version ${version.version}?`, text, String(version.version), "Activate");
}

function goBack(store) {
  const text = `${store.current} is marked bad and never tried again by itself; ${store.previous} drives again.`;
  return change({ verb: "rollback", version: store.current }, `Go back to version ${numberOf(store.previous)}?`, text, numberOf(store.previous), "Go back");
}

function row(version) {
  const button = make("button", { type: "button", disabled: version.current || version.state === "bad" || Boolean(version.problem), onclick: () => activate(version) }, version.current ? "Current" : "Activate…");
  const report = Object.entries(version.report).flatMap(([title, text]) => [make("dt", {}, title), make("dd", {}, text)]);
  const details = make("details", {}, make("summary", {}, "Report"), make("dl", { class: "facts" }, ...report));
  return make("article", { class: "version", "data-state": version.state, "data-current": String(version.current), "aria-label": `version ${version.version}` },
    make("h3", {}, `${version.version}`, make("small", {}, name(version.name))),
    make("p", { class: "chips" }, make("span", { class: "chip", "data-state": version.state }, version.state), make("span", { class: version.trusted ? "chip good" : "chip quiet" }, version.signature || "unreadable")),
    make("p", {}, version.problem || version.note || (version.created && `made ${version.created}`)), details, button);
}

export function update(store) {
  const back = make("button", { type: "button", disabled: !store.previous || store.previous === store.current, onclick: () => goBack(store) }, store.previous ? `Go back to version ${numberOf(store.previous)}…` : "No version to go back to");
  head.replaceChildren(make("span", {}, store.problem || `${store.versions.length} versions in `, make("code", {}, store.directory)), back);
  list.replaceChildren(...store.versions.map(row));
}
