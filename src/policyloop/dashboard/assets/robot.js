// One robot's card: what it sees, wants and does, how fresh that is, and the buttons if its program runs here.

import { drawTrail } from "./chart.js";
import { ask } from "./dialog.js";
import { duration, make, milliseconds, name, number, order, percent, whole, write } from "./dom.js";

const TRAIL_STEPS = 300, TRAIL_ACTIONS = 2;
const PLAIN_NAME = /^[a-z0-9][a-z0-9._-]{0,63}$/;
const DRIVERS = { human: "a person", policy: "the policy", scripted: "a script", random: "chance" };
const SPANS = { inferred: "to inferred", acted: "to acted", stored: "to here" };
const HERE = ["localhost", "[::1]"].includes(location.hostname) || location.hostname.startsWith("127.");

export class RobotCard {
  constructor(robot, watch) {
    this.name = robot;
    this.robot = this.control = null;
    this.trail = [];
    this.heardAt = 0;
    this.visible = true;
    this.build();
    watch.observe(this.element);
  }

  build() {
    const parts = this.parts = {
      age: make("span", { class: "age" }), source: make("span", { class: "chip" }), state: make("span", { class: "chip", hidden: true }),
      policy: make("span", { class: "chip quiet" }), contact: make("span", { class: "chip bad", hidden: true }, "contact"),
      pictures: make("div", { class: "pictures", hidden: true }), actions: make("div", { class: "actions" }),
      gate: make("p", { class: "gate", role: "status" }), log: make("ol", { class: "log" }), facts: make("dl", { class: "facts" }),
      latency: make("tbody"), buttons: make("div", { class: "buttons" }), says: make("p", { class: "says", role: "alert" }),
    };
    this.canvases = {};
    for (const [kind, title] of [["rgb", "camera"], ["depth", "depth"]]) {
      const canvas = this.canvases[kind] = make("canvas", { width: 424, height: 240, role: "img", "aria-label": `${title} of ${this.name}` });
      parts.pictures.append(make("figure", {}, canvas, make("figcaption", {}, title)));
    }
    const head = make("header", {}, make("h2", {}, name(this.name)), parts.age);
    const chips = make("p", { class: "chips" }, parts.state, parts.source, parts.policy, parts.contact);
    const table = make("table", { class: "latency" },
      make("caption", {}, "Latency from capture"),
      make("thead", {}, make("tr", {}, ...["", "p50", "p95", "p99"].map((text) => make("th", { scope: "col" }, text)))), parts.latency);
    const more = make("details", {}, make("summary", {}, "Gate, link and latency"), parts.log, parts.facts, table);
    more.open = window.matchMedia("(min-width: 700px)").matches;
    this.element = make("article", { class: "card robot", "aria-label": `robot ${this.name}` },
      head, chips, parts.pictures, parts.actions, parts.gate, more, parts.buttons, parts.says);
    this.element.card = this;
  }

  update(robot, control, frame) {
    const profileIsNew = !this.robot && robot;
    [this.robot, this.control] = [robot, control];
    this.frame = frame;
    this.heardAt = performance.now();
    if (profileIsNew) this.buildActions(frame);
    if (robot && this.visible) {  // what nobody sees costs a phone's battery all the same
      this.showActions(frame);
      this.showGate();
      this.showFacts();
    }
    this.showControl();
    this.showChips();
    this.showAge(0);
  }

  buildActions(frame) {
    this.axes = frame.actions.map((action, index) => {
      const axis = { proposed: make("i", { class: "proposed" }), command: make("i", { class: "command" }), text: make("output") };
      const bar = make("div", { class: "bar", "aria-hidden": "true" }, axis.command, axis.proposed);
      const row = make("div", { class: "axis" }, make("span", {}, `${action.name} `, make("small", {}, action.unit)), bar, axis.text);
      if (index < TRAIL_ACTIONS) {
        axis.canvas = make("canvas", { class: "trail", role: "img", "aria-label": `${action.name} over the last ${TRAIL_STEPS} steps, proposed and commanded` });
        row.append(axis.canvas);
      }
      this.parts.actions.append(row);
      return axis;
    });
    this.parts.actions.append(make("p", { class: "legend" }, make("i", { class: "proposed" }), " proposed ", make("i", { class: "command" }), " let through by the gate"));
    if (frame.depth_m) {
      this.parts.pictures.hidden = false;
      const [near, far] = frame.depth_m;
      this.canvases.depth.nextSibling.append(make("span", { class: "scale" }, ` ${near} m `, make("i"), ` ${far} m, grey: not measured`));
    }
  }

  showActions(frame) {
    const { action, command, damped } = this.robot;
    frame.actions.forEach((spec, index) => {
      const axis = this.axes[index], share = (value) => 100 * Math.min(1, Math.max(0, (value - spec.low) / (spec.high - spec.low)));
      const zero = share(0), to = share(command[index]);
      axis.proposed.style.left = `${share(action[index])}%`;
      axis.command.style.left = `${Math.min(zero, to)}%`;
      axis.command.style.width = `${Math.abs(to - zero)}%`;
      write(axis.text, `${action[index].toFixed(2)} → ${damped ? "damped" : command[index].toFixed(2)}`);
    });
  }

  showGate() {
    const { reasons, events, shares } = this.robot, { gate, log } = this.parts;
    gate.classList.toggle("changed", reasons.length > 0);
    write(gate, reasons.length ? `Gate: ${reasons.join(", ")}` : "Gate: lets it through as it is");
    const lines = events.map(({ reasons: said, steps, age_s: age }) => [said.length ? said.join(", ") : "as it is", `${whole(steps)} ${steps === 1 ? "step" : "steps"}`, age < 1 ? "now" : `${duration(age)} ago`]);
    while (log.children.length > lines.length) log.lastChild.remove();
    lines.forEach((texts, i) => {
      if (!log.children[i]) log.append(make("li", {}, make("b"), make("span"), make("time")));
      texts.forEach((text, j) => write(log.children[i].children[j], text));
      log.children[i].classList.toggle("changed", texts[0] !== "as it is");
    });
    const often = Object.entries(shares).map(([reason, share]) => `${reason} ${percent(share)}`).join(", ");
    this.often = often || "none";
  }

  showFacts() {
    const robot = this.robot;
    this.facts = {
      "Arrives": `${robot.rate_hz.toFixed(1)} steps/s`,
      "Behind": robot.behind_s === null ? "unknown: clocks were not compared" : robot.behind_s > 1 ? `${duration(robot.behind_s)}, about ${whole(robot.waiting)} steps still on the robot` : milliseconds(1000 * robot.behind_s),
      "Gaps": robot.gaps ? `${whole(robot.gaps)}, ${whole(robot.missing)} steps missing` : "none since this page watches",
      "Episode": `${whole(robot.episode)}, step ${whole(robot.index)}, return ${number(robot.score)}`,
      "Gate's rules, last steps": this.often,
    };
    const { facts, latency } = this.parts;
    if (!facts.children.length) for (const title of Object.keys(this.facts)) facts.append(make("dt", {}, title), make("dd"));
    Object.values(this.facts).forEach((text, i) => write(facts.children[2 * i + 1], text));
    const spans = Object.entries(robot.latency);
    while (latency.children.length > spans.length) latency.lastChild.remove();
    spans.forEach(([span, { p50, p95, p99 }], i) => {
      if (!latency.children[i]) latency.append(make("tr", {}, make("th", { scope: "row" }), make("td"), make("td"), make("td")));
      [SPANS[span] || span, ...[p50, p95, p99].map(milliseconds)].forEach((text, j) => write(latency.children[i].children[j], text));
    });
  }

  showChips() {
    const { source, policy, contact, state } = this.parts, robot = this.robot, control = this.control;
    source.hidden = policy.hidden = !robot;
    if (robot) {
      write(source, `driven by ${DRIVERS[robot.source] || robot.source}`);
      source.dataset.source = robot.source;
      contact.hidden = !robot.contact;
      const behind = robot.versions_behind ? `, ${whole(robot.versions_behind)} behind` : "";
      write(policy, robot.policy_version === null ? "no policy" : `policy ${robot.policy_version}${behind}`);
    }
    state.hidden = !control;
    if (!control) return;
    const status = control.status, silent = control.problem || !status;
    state.dataset.state = silent ? "silent" : status.state;
    write(state, silent ? "its program does not answer" : `${status.state}${status.reason ? `: ${status.reason}` : ""}${status.stop_held ? ", stop is pressed" : ""}`);
  }

  showControl() {
    const kind = this.control ? (this.control.status?.stop_held ? "held" : this.control.status?.state || "silent") : "remote";
    if (this.kind === kind) return;
    this.kind = kind;
    const { buttons } = this.parts;
    const button = (text, css, act) => make("button", { type: "button", class: css, onclick: act }, text);
    buttons.replaceChildren();
    if (kind === "remote") {
      const verb = PLAIN_NAME.test(this.name) ? `policyloop robot stop --name ${this.name}` : "policyloop robot stop";
      buttons.append(make("details", {}, make("summary", {}, "How to stop it"), make("p", {}, "Its control socket is on its own machine, and nothing on the network arms a robot. Type there, or put ssh USER@ITS-ADDRESS before it:"), make("code", {}, verb)));
      return;
    }
    buttons.append(button("STOP", "stop small", () => this.say("stop")));
    if (kind === "armed") buttons.append(button("Disarm", "", () => this.say("disarm")));
    if (kind === "tripped") buttons.append(button("Take note, disarm", "", () => this.say("disarm")));
    if (!HERE) buttons.append(make("p", { class: "hint" }, "Arm it on its own machine: policyloop robot arm; or open this page there, or through ssh -L."));
    else if (kind === "held") buttons.append(button("Release stop…", "", () => this.confirmed("release", "Release the emergency stop?", "Nothing moves by that, but then it can be armed again.")));
    else if (kind === "disarmed" || kind === "tripped") buttons.append(button("Arm…", "", () => this.confirmed("arm", "Arm this robot?", "It will move by itself at once. Look around first: is everybody out of its way, is its own stop in reach?")));
  }

  async confirmed(verb, title, text) {
    const typed = await ask(title, text, this.name, verb === "arm" ? "Arm" : "Release");
    if (typed !== null) await this.say(verb, typed);
  }

  async say(verb, confirm = "") {
    const { says } = this.parts;
    write(says, "");
    try {
      const status = await order("robot", { name: this.name, verb, confirm });
      if (this.control) { this.control.status = status; this.control.problem = ""; }
      this.showControl();
      this.showChips();
      return true;
    } catch (error) {
      write(says, `${verb.toUpperCase()} DID NOT GET THROUGH: ${error.message}${verb === "stop" ? " Use the robot's own stop." : ""}`);
      return false;
    }
  }

  showAge(lag) {
    const { age } = this.parts;
    if (!this.robot) {
      this.element.classList.remove("stale");
      write(age, "no steps yet");
      return;
    }
    const seconds = (this.robot.age_s ?? Infinity) + lag + (performance.now() - this.heardAt) / 1000;
    const stale = seconds > Math.max(1, 3 * this.frame.period_s);
    this.element.classList.toggle("stale", stale);
    write(age, stale ? `${duration(seconds)} old` : `live, ${this.robot.rate_hz.toFixed(0)} Hz`);
  }

  addTrail(points, style) {
    this.trail.push(...points);
    this.trail.splice(0, Math.max(0, this.trail.length - TRAIL_STEPS));
    if (!this.axes || !this.visible) return;
    this.axes.forEach((axis, index) => { if (axis.canvas) drawTrail(axis.canvas, this.trail, this.frame.actions[index], index, style); });
  }

  async draw(kind, jpeg) {
    const canvas = this.canvases[kind];
    const picture = await createImageBitmap(new Blob([jpeg], { type: "image/jpeg" }));
    if (canvas.width !== picture.width || canvas.height !== picture.height) Object.assign(canvas, { width: picture.width, height: picture.height });
    canvas.getContext("2d").drawImage(picture, 0, 0);
    picture.close();
  }
}
