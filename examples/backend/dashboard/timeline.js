// Ten minutes of one breaker: how many calls there were and failed, above the states that it was in.
//
// A state is told by its height and its pattern as well as by its colour: closed is a thin line, half-open
// hatched and higher, open a full block; what is held by hand has a line through it.

import { drawing, element, mark, write } from "./dom.js";
import { clock, count, counted, duration } from "./words.js";

export const SPAN = 600; // seconds
const HEIGHT = 72;
const BARS = 50; // the height that is kept for the calls
const LEAST = 4; // calls that a bar of full height stands for at least: a single call is no peak
const BAND = { closed: 4, "half-open": 11, open: 16, "forced-open": 16, "forced-closed": 8 };

const WORDS = {
  closed: "closed",
  "half-open": "half-open",
  open: "open",
  "forced-open": "held open",
  "forced-closed": "held closed",
};

/** Return a state as people say it. */
export const stateWord = (state) => WORDS[state] ?? state;

/** Return the timeline of a breaker, as `{ root, update }`. */
export function timeline(name) {
  const plot = drawing("svg", { class: "plot", viewBox: `0 0 ${SPAN} ${HEIGHT}`, preserveAspectRatio: "none", role: "img" });
  const peak = element("span", { class: "peak" });
  const start = element("span", {});
  const axis = element("p", { class: "axis", "aria-hidden": "true" }, start, element("span", {}, "5 min"), element("span", {}, "now"));
  write(start, "10 min ago");
  const root = element("div", { class: "timeline" }, peak, plot, axis);
  return {
    root,
    update(breaker, now) {
      const periods = periodsOf(breaker.timeline, now);
      const load = loadOf(breaker.load, now);
      const highest = Math.max(0, ...load.map(({ calls }) => calls));
      write(peak, highest ? `at most ${counted(highest, "call")} in ${count(breaker.load.step)} s` : "no calls");
      if (!plot.matches(":hover")) {
        // A tip vanishes with what it belongs to, so whoever points at something has time to read.
        const calls = bars(load, Math.max(LEAST, highest), now);
        plot.replaceChildren(...gridLines(), ...shades(periods, now), ...calls, ...bands(periods, now));
      }
      mark(plot, "aria-label", summary(name, periods));
    },
  };
}

/** Return when each state began and ended, of what falls into the last ten minutes. */
function periodsOf(changes, now) {
  const earliest = now - SPAN * 1000;
  return changes
    .map((change, place) => ({
      state: change.state,
      from: Math.max(Date.parse(change.at), earliest),
      to: place + 1 < changes.length ? Date.parse(changes[place + 1].at) : now,
    }))
    .filter((period) => period.to > earliest && period.to >= period.from);
}

function loadOf(load, now) {
  const step = load.step * 1000;
  const first = Date.parse(load.from);
  return load.calls
    .map((calls, place) => ({ at: first + place * step, step, calls, failures: load.failures[place] }))
    .filter(({ calls, at }) => calls > 0 && at >= now - SPAN * 1000 && at < now);
}

const across = (instant, now) => SPAN - (now - instant) / 1000;

function rectangle(kind, from, to, now, top, height, tip) {
  const x = across(from, now);
  const width = Math.max(across(to, now) - x, 1.5); // what was over in a moment is still to be seen
  const made = drawing("rect", { class: kind, x: x.toFixed(2), y: top.toFixed(2), width: width.toFixed(2), height: height.toFixed(2) });
  if (tip) made.append(drawing("title", {}, tip));
  return made;
}

function* gridLines() {
  yield drawing("path", { class: "grid", d: `M0 ${BARS + 2.5}H${SPAN}` });
  for (let x = 0; x <= SPAN; x += SPAN / 5) yield drawing("path", { class: "grid", d: `M${x} 0V${BARS + 2}` });
}

function* shades(periods, now) {
  for (const { state, from, to } of periods) {
    if (state !== "closed" && state !== "forced-closed") yield rectangle(`shade ${state}`, from, to, now, 0, BARS + 2);
  }
}

function* bars(load, most, now) {
  for (const { at, step, calls, failures } of load) {
    const tip = `${clock(at)}: ${counted(calls, "call")}, ${count(failures)} failed`;
    const tall = (calls / most) * BARS;
    const failed = (failures / most) * BARS;
    const end = Math.min(at + step * 0.8, now); // the last step is not over yet
    if (tall > failed) yield rectangle("bar", at, end, now, BARS + 2 - tall, tall - failed, tip);
    if (failed > 0) yield rectangle("bar failed", at, end, now, BARS + 2 - failed, failed, tip);
  }
}

function* bands(periods, now) {
  for (const { state, from, to } of periods) {
    const tall = BAND[state] ?? 10;
    const tip = sentence({ state, from, to });
    yield rectangle(`band ${state}`, from, to, now, HEIGHT - tall, tall, tip);
    const [x, end] = [across(from, now), across(to, now)];
    if (state === "half-open") yield drawing("path", { class: "hatch", d: hatch(x, Math.max(end, x + 1.5), tall) });
    if (state.startsWith("forced")) yield drawing("path", { class: "hatch", d: `M${x} ${HEIGHT - tall / 2}H${end}` });
  }
}

function hatch(from, to, tall) {
  let path = "";
  for (let x = from; x < to - 2; x += 5) path += `M${x.toFixed(1)} ${HEIGHT}L${Math.min(x + 5, to).toFixed(1)} ${HEIGHT - tall}`;
  return path || "M0 0";
}

function summary(name, periods) {
  const told = periods.slice(-6).map(sentence);
  return `${name}, the last ten minutes: ${told.join("; ") || "nothing on record"}`;
}

const sentence = ({ state, from, to }) => `${stateWord(state)} from ${clock(from)} for ${duration((to - from) / 1000)}`;
