// The page's one connection: takes frames, shows them, says so, and makes old data look old.

import { bytes, duration, whole, write } from "./dom.js";
import * as learner from "./learner.js";
import { RobotCard } from "./robot.js";
import * as store from "./store.js";

const LOST_S = 1.5, AWAY_S = 60, RETRY_MS = 1000, LOOK_MS = 250, SAID_MS = 5000, HIDDEN_MS = 500, LONGEST_REST_MS = 100, MAX_LOOKED_AT = 16;
const byId = (id) => document.getElementById(id);
const cards = new Map();
const pictures = [];
let socket = null, frame = null, begunAt = null, heardAt = -Infinity, restedAt = -Infinity, lag = 0, times = [];
let shown = Promise.resolve();  // frame after frame

const watch = new IntersectionObserver((entries) => {
  for (const { target, isIntersecting } of entries) target.card.visible = isIntersecting;
}, { rootMargin: "200px" });

function style() {
  const css = getComputedStyle(document.body);
  return { proposed: css.getPropertyValue("--proposed"), command: css.getPropertyValue("--command"), rule: css.getPropertyValue("--rule") };
}

function section(id) {
  byId(id).hidden = false;
  document.querySelector(`nav a[href="#${id}"]`).hidden = false;
}

function showFrame(message) {
  frame = message;
  const robots = new Map(message.robots.map((robot) => [robot.name, robot]));
  const controls = new Map(message.controls.map((control) => [control.name, control]));
  const isAway = (name) => !controls.has(name) && robots.get(name).age_s > AWAY_S;
  const sorted = [...new Set([...controls.keys(), ...robots.keys()])].sort();
  const names = [...sorted.filter((name) => !isAway(name)), ...sorted.filter(isAway)];
  for (const [name, card] of cards) if (!names.includes(name)) { card.element.remove(); cards.delete(name); }
  names.forEach((name, i) => {
    if (!cards.has(name)) cards.set(name, new RobotCard(name, watch));
    const { element } = cards.get(name), there = byId("cards").children[i];
    if (there !== element) byId("cards").insertBefore(element, there || null);
    cards.get(name).update(robots.get(name) || null, controls.get(name) || null, message);
  });
  byId("nobody").hidden = names.length > 0;
  write(byId("profile"), message.profile ? `${message.profile}, ${whole(message.steps)} steps, ${bytes(message.size_bytes)}` : "");
  write(byId("problem"), message.journal_problem);
  byId("problem").hidden = !message.journal_problem;
  byId("stop-bar").hidden = controls.size === 0;
  document.body.classList.toggle("has-stop", controls.size > 0);
  write(byId("stop"), controls.size > 1 ? `STOP all ${controls.size}` : "STOP");
  learner.tick(message);
}

function hear(event) {
  begunAt ??= performance.now();
  if (event.data instanceof ArrayBuffer) {
    const length = new DataView(event.data).getUint32(0, true);
    const head = JSON.parse(new TextDecoder().decode(new Uint8Array(event.data, 4, length)));
    const card = cards.get(head.robot);
    if (card) pictures.push(card.draw(head.picture, event.data.slice(4 + length)));
    return;
  }
  const message = JSON.parse(event.data);
  if (message.kind === "live") showFrame(message);
  else if (message.kind === "trails") { const look = style(); for (const [name, points] of message.trails) cards.get(name)?.addTrail(points, look); }
  else if (message.kind === "learner") { section("learner"); learner.update(message); }
  else if (message.kind === "store") { section("store"); store.update(message); }
  else if (message.kind === "end") {
    const arrived = { begunAt, decoded: Promise.allSettled(pictures.splice(0)), from: event.target };
    begunAt = null;
    shown = shown.then(() => finish(message, arrived));
  }
}

const pause = (milliseconds) => new Promise((resolve) => setTimeout(resolve, milliseconds));

// A browser draws nothing where it hides the page.
const drawn = () => Promise.race([new Promise((resolve) => requestAnimationFrame(() => setTimeout(resolve))), pause(HIDDEN_MS)]);

// Says that a frame was shown, and rests before that for as long as showing it took: a device that is slow, or has other
// work to do, gets fewer frames.
async function finish({ frame: number, lag_s: seconds }, { begunAt, decoded, from }) {
  const begun = Math.max(begunAt, restedAt);
  await decoded;
  await drawn();
  [heardAt, lag] = [performance.now(), seconds];
  times = [...times.filter((time) => heardAt - time < 3000), heardAt];
  document.body.dataset.frames = String(number);
  await pause(Math.min(LONGEST_REST_MS, heardAt - begun));
  restedAt = performance.now();
  const visible = [...cards.values()].filter((card) => card.visible && card.robot).map((card) => card.name);
  if (from.readyState === WebSocket.OPEN) from.send(JSON.stringify({ frame: number, look: visible.slice(0, MAX_LOOKED_AT) }));
}

function connect() {
  socket = new WebSocket(`${location.protocol === "https:" ? "wss" : "ws"}://${location.host}/live`);
  socket.binaryType = "arraybuffer";
  socket.onmessage = hear;
  socket.onclose = async () => {
    setTimeout(connect, RETRY_MS);
    const answer = await fetch("app.js", { method: "HEAD" }).catch(() => null);
    if (answer?.status === 401) location.reload();
  };
}

function look() {
  const silent = (performance.now() - heardAt) / 1000, lost = silent > LOST_S;
  document.body.dataset.contact = lost ? "lost" : "live";
  write(byId("contact"), !lost ? `live, ${(times.length / 3).toFixed(0)} frames/s` : Number.isFinite(silent) ? `no contact for ${duration(silent)}: what you see is old` : "connecting");
  for (const card of cards.values()) card.showAge(lag);
}

async function stopAll() {
  const reachable = [...cards.values()].filter((card) => card.control);
  write(byId("stop-says"), "");
  const done = await Promise.all(reachable.map((card) => card.say("stop")));
  const failed = reachable.filter((_, i) => !done[i]).map((card) => card.name);
  write(byId("stop-says"), failed.length ? `STOP DID NOT GET THROUGH to ${failed.join(", ")}: use its own stop` : "stopped");
  byId("stop-bar").classList.toggle("failed", failed.length > 0);
  if (!failed.length) setTimeout(() => write(byId("stop-says"), ""), SAID_MS);
}

byId("stop").addEventListener("click", stopAll);
setInterval(look, LOOK_MS);
connect();
