// The sections of the page: each takes the report of the backend and brings its part up to date.

import { byId, drawing, element, figure, listIn, mark, meter, write } from "./dom.js";
import { stateWord, timeline } from "./timeline.js";
import { ago, bytes, clock, count, counted, duration, percent, tenths } from "./words.js";

const PRESSING = 7; // keys that are shown
const RECENT = 40; // events that are shown

/** What an operator can do to a breaker: the word on the button, what will follow, and when it makes no sense. */
const ORDERS = [
  {
    order: "force-open",
    word: "Force open",
    title: (name) => `Force ${name} open?`,
    text: "Every call is refused at once, in all processes, until somebody resets it. Nothing closes it by itself.",
    isIdle: (state) => state === "forced-open",
  },
  {
    order: "force-close",
    word: "Force close",
    title: (name) => `Force ${name} closed?`,
    text: "Every call is let through, in all processes, however many fail, until somebody resets it.",
    isIdle: (state) => state === "forced-closed",
  },
  {
    order: "reset",
    word: "Reset",
    title: (name) => `Reset ${name}?`,
    text: "It closes, begins to count afresh and decides by itself again. Calls in flight are not counted.",
    isIdle: () => false,
  },
];

/** Return a function that shows a report; `onOrder` is called with a breaker's name and what to do to it. */
export function view(onOrder) {
  const parts = [verdict(), breakers(onOrder), limits(), events(), retries(), janitor(), processes()];
  return (report) => {
    const now = Date.parse(report.now);
    for (const update of parts) update(report, now);
  };
}

// --- the whole at a glance -----------------------------------------------------------------------

const HEADLINES = { pass: "All is well", warn: "Something needs a look", fail: "Something is down" };

function verdict() {
  const root = byId("verdict");
  const headline = byId("headline");
  const reasons = byId("reasons");
  return ({ health, breakers: all, processes: alive }) => {
    mark(root, "data-status", health.status);
    const bad = Object.entries(health.checks).filter(([, check]) => check.status !== "pass");
    const refused = all.filter(({ state }) => state === "open" || state === "forced-open").map(({ name }) => name);
    write(headline, health.status === "warn" && refused.length ? `Calls to ${list(refused)} are refused` : HEADLINES[health.status]);
    const well = `${counted(all.length, "breaker")}, ${counted(alive.length, "process", "processes")}; nothing calls for you.`;
    write(reasons, bad.map(([name, check]) => `${partName(name)}: ${stateWord(check.output)}`).join(" · ") || well);
    document.title = `${{ pass: "✓", warn: "!", fail: "✕" }[health.status]} ${headline.textContent}`;
  };
}

const partName = (name) => name.replace("breaker:", "");
const list = (names) => names.join(", ").replace(/, ([^,]*)$/, " and $1");

// --- breakers ------------------------------------------------------------------------------------

function breakers(onOrder) {
  const show = listIn(byId("breaker-list"), ({ name }) => name, ({ name }) => breakerRow(name, onOrder));
  return (report, now) => show(report.breakers.map((breaker) => ({ ...breaker, now })));
}

function breakerRow(name, onOrder) {
  const icon = drawing("svg", { class: "icon", viewBox: "0 0 16 16", "aria-hidden": "true" }, drawing("path", {}));
  const word = element("span");
  const state = element("p", { class: "state" }, icon, word);
  const detail = element("p", { class: "detail" });
  const plot = timeline(name);
  const figures = [figure("Calls"), figure("Failed"), figure("Opens at"), figure("Retry in")];
  const buttons = ORDERS.map((order) => {
    const button = element("button", { type: "button", class: "button small", "aria-label": `${order.word}: ${name}` }, order.word);
    button.addEventListener("click", () => onOrder(name, order));
    return { button, order };
  });
  const root = element(
    "li",
    { class: "breaker" },
    element("div", { class: "who" }, element("h3", {}, name), state, detail),
    plot.root,
    element("dl", { class: "figures compact" }, ...figures.map(({ root: each }) => each)),
    element("div", { class: "orders", role: "group", "aria-label": `${name} by hand` }, ...buttons.map(({ button }) => button)),
  );
  return {
    root,
    update(breaker) {
      mark(root, "data-state", breaker.state);
      mark(icon.firstChild, "d", ICONS[breaker.state] ?? ICONS.open);
      write(word, stateWord(breaker.state));
      write(detail, detailOf(breaker));
      plot.update(breaker, breaker.now);
      const { calls, failures, threshold } = breaker;
      const [all, failed, opens, retry] = figures;
      all.update(count(calls));
      failed.update(calls ? `${count(failures)} · ${percent(failures / calls)}` : "0");
      opens.update(threshold <= 1 ? percent(threshold) : `${count(threshold)} in a row`);
      retry.update(retryIn(breaker));
      for (const { button, order } of buttons) button.disabled = order.isIdle(breaker.state);
    },
  };
}

const ICONS = {
  closed: "M3 8.5 6.5 12 13 4.5",
  open: "M4 4l8 8M12 4l-8 8",
  "half-open": "M8 2.5v11M8 2.5a5.5 5.5 0 0 1 0 11",
  "forced-open": "M4.5 7.5v5h7v-5zM6 7.5V5.2a2 2 0 0 1 4 0v2.3",
  "forced-closed": "M4.5 7.5v5h7v-5zM6 7.5V5.2a2 2 0 0 1 4 0v2.3",
};

function retryIn({ state, time_until_retry: wait }) {
  if (state === "closed" || state === "forced-closed") return "–";
  return wait === null ? "by hand" : duration(wait);
}

function detailOf({ state, timeline: changes, now, probes, probe_successes: successes, processes: apart }) {
  const since = changes.length ? duration((now - Date.parse(changes.at(-1).at)) / 1000) : "";
  if (apart && new Set(Object.values(apart)).size > 1) return `${Object.values(apart).map(stateWord).join(", ")}: processes differ`;
  if (state === "half-open") return `${counted(probes, "probe")} in flight, ${count(successes)} succeeded`;
  return since && `for ${since}`;
}

// --- limits --------------------------------------------------------------------------------------

function limits() {
  const show = listIn(byId("limit-list"), ({ limiter, key, quota }) => `${limiter} ${key} ${quota}`, limitRow);
  return ({ limits: { limiters, output } }) => {
    const used = limiters.flatMap(({ name, entries }) => entries.map((entry) => ({ ...entry, limiter: name })));
    used.sort((one, other) => other.count / other.limit - one.count / one.limit || other.reset_after - one.reset_after);
    show(used.slice(0, PRESSING));
    byId("limits-empty").hidden = used.length > 0;
    write(byId("limits-empty"), output ?? "No limit is in use.");
    const refused = limiters.reduce((sum, limiter) => sum + limiter.refused, 0);
    write(byId("limits-note"), `${counted(used.length, "key")} counted, ${counted(refused, "call")} refused`);
  };
}

function limitRow({ limiter, key, quota }) {
  const bar = meter(`${limiter}, used`);
  const hashed = element("code", { title: "the key, hashed" }, key);
  const used = element("span", { class: "number" });
  const reset = element("span", { class: "faint" });
  const root = element(
    "li",
    { class: "limit" },
    element("p", { class: "pair" }, element("span", {}, element("strong", {}, limiter), " ", hashed), used),
    bar.root,
    element("p", { class: "pair faint" }, element("span", {}, quota), reset),
  );
  return {
    root,
    update({ count: units, limit, reset_after: after }) {
      const share = units / limit;
      const full = units >= limit;
      mark(root, "data-full", full);
      bar.update(share, `${count(units)} of ${count(limit)}`, full ? "full" : share >= 0.8 ? "high" : "fine");
      write(used, `${count(units)} of ${count(limit)}${full ? ", full" : ""}`);
      write(reset, `whole in ${duration(after)}`);
    },
  };
}

// --- events --------------------------------------------------------------------------------------

function events() {
  const show = listIn(byId("event-list"), ({ id }) => id, eventRow);
  return ({ events: recent }, now) => {
    show(recent.slice(0, RECENT).map((event) => ({ ...event, now })));
    byId("events-empty").hidden = recent.length > 0;
  };
}

const SEVERITIES = { good: "recovered", info: "note", warning: "warning" };

function eventRow({ kind, name, severity }) {
  const time = element("time");
  const text = element("span", { class: "text" });
  const times = element("span", { class: "times" });
  const path = drawing("path", { d: EVENT_ICONS[severity] ?? EVENT_ICONS.info });
  const meaning = { role: "img", "aria-label": SEVERITIES[severity] ?? severity };
  const icon = drawing("svg", { class: "icon", viewBox: "0 0 16 16", ...meaning }, path);
  const who = [element("strong", {}, name), " ", element("span", { class: "faint" }, kind)];
  const told = element("p", {}, ...who, element("br"), text, times);
  const root = element("li", { class: "event", "data-severity": severity }, icon, told, time);
  return {
    root,
    update({ at, message, times: repeated, now }) {
      write(text, message);
      write(times, repeated > 1 ? `×${count(repeated)}` : "");
      mark(time, "datetime", at);
      mark(time, "title", new Date(at).toLocaleString("en-GB"));
      write(time, (now - Date.parse(at)) / 1000 < 60 ? ago((now - Date.parse(at)) / 1000) : clock(Date.parse(at)));
    },
  };
}

const EVENT_ICONS = { good: "M3 8.5 6.5 12 13 4.5", warning: "M8 2.5v7M8 12.4v.8", info: "M4.5 8h7" };

// --- retries -------------------------------------------------------------------------------------

function retries() {
  const show = listIn(byId("retry-list"), ({ name }) => name, retryRow);
  return ({ retries: all }) => {
    show(Object.entries(all.policies).map(([name, policy]) => ({ ...policy, name })));
    const ended = all.successful_retries + all.failed_retries;
    write(byId("retries-note"), ended ? `${all.retry_success_percent} of retried calls succeeded` : "no call was retried");
  };
}

function retryRow({ name }) {
  const bar = meter(`${name}, budget left`);
  const left = element("span", { class: "number" });
  const figures = [figure("Retries"), figure("Succeeded"), figure("Failed"), figure("No budget"), figure("Breaker")];
  const root = element(
    "li",
    { class: "retry" },
    element("p", { class: "pair" }, element("strong", {}, name), left),
    bar.root,
    element("dl", { class: "figures compact" }, ...figures.map(({ root: each }) => each)),
  );
  return {
    root,
    update(policy) {
      const { budget } = policy;
      bar.root.hidden = !budget;
      if (budget) {
        const share = budget.tokens / budget.capacity;
        const level = share < 0.2 ? "full" : share < 0.5 ? "high" : "fine";
        bar.update(share, `${tenths(budget.tokens)} of ${tenths(budget.capacity)} tokens`, level);
      }
      write(left, budget ? `budget ${tenths(budget.tokens)} of ${tenths(budget.capacity)}` : "no budget");
      const { total_retries, successful_retries, failed_retries, budget_rejections, circuit_breaker_rejections } = policy;
      const told = [total_retries, successful_retries, failed_retries, budget_rejections, circuit_breaker_rejections];
      told.forEach((number, place) => figures[place].update(count(number)));
    },
  };
}

// --- janitor and processes -----------------------------------------------------------------------

function janitor() {
  const labels = ["Last sweep", "Sweeps", "Sessions removed", "Sockets closed", "Failed sweeps", "Memory alerts"];
  const figures = labels.map(figure);
  byId("janitor-figures").append(...figures.map(({ root }) => root));
  return ({ janitor: swept }, now) => {
    const { last_sweep_at: last, sweeps, sessions_cleaned, connections_closed, failed_sweeps, memory_alerts } = swept;
    figures[0].update(last ? ago((now - Date.parse(last)) / 1000) : "none yet");
    const told = [sweeps, sessions_cleaned, connections_closed, failed_sweeps, memory_alerts];
    told.forEach((number, place) => figures[place + 1].update(count(number)));
    write(byId("janitor-note"), swept.is_running ? "running" : "stopped");
  };
}

function processes() {
  const show = listIn(byId("process-list"), ({ id }) => id, processRow);
  return ({ processes: alive }, now) => {
    show(alive.map((process) => ({ ...process, now })));
    write(byId("processes-note"), `${count(alive.length)} heard of lately`);
  };
}

function processRow({ pid, host, app }) {
  const bar = meter(`process ${pid}, memory`);
  const memory = element("span", { class: "number" });
  const age = element("span", { class: "faint" });
  const state = element("span", { class: "state" });
  const root = element(
    "li",
    { class: "process" },
    element("p", {}, element("strong", {}, `${host} · ${pid}`), " ", element("span", { class: "faint" }, app)),
    state,
    age,
    element("div", { class: "memory" }, bar.root, memory),
  );
  return {
    root,
    update({ started_at: started, seen_at: seen, draining, memory: { resident, limit, high }, now }) {
      write(state, draining ? "draining" : "serving");
      mark(root, "data-draining", draining);
      write(age, `up ${duration((now - Date.parse(started)) / 1000)}, seen ${ago((now - Date.parse(seen)) / 1000)}`);
      const share = resident !== null && limit ? resident / limit : 0;
      const text = resident === null ? "memory unknown" : limit ? `${bytes(resident)} of ${bytes(limit)}` : bytes(resident);
      bar.update(share, text, high ? "full" : share >= 0.6 ? "high" : "fine");
      write(memory, text);
    },
  };
}
