// The page: asks for the report each second, shows it, and carries what an operator orders.
//
// It asks one thing, /api/monitoring/overview, so that all figures are of the same instant. When no answer
// comes it says so, keeps showing what it knows, paler, and asks less and less often. Nobody looking: it rests.

import { byId, write } from "./dom.js";
import { stateWord } from "./timeline.js";
import { view } from "./view.js";
import { duration } from "./words.js";

const REPORT = "/api/monitoring/overview";
const PERIOD = 1; // seconds between one answer and the next question
const PATIENCE = 5; // seconds that an answer may take
const LONGEST = 30; // seconds between two questions when nobody answers
const STORED = "monitoring-token";

/** What went wrong with a request, as an operator should read it. */
class Refused extends Error {
  constructor(status, message) {
    super(message);
    this.status = status;
  }
}

/** Ask the backend; return its JSON. */
async function ask(path, method = "GET") {
  const token = sessionStorage.getItem(STORED);
  const answer = await fetch(path, {
    method,
    cache: "no-store",
    credentials: "omit",
    redirect: "error",
    headers: token ? { Authorization: `Bearer ${token}` } : {},
    signal: AbortSignal.timeout(PATIENCE * 1000),
  });
  if (answer.ok) return answer.json();
  const body = await answer.json().catch(() => ({}));
  throw new Refused(answer.status, body.error ?? `The backend answered ${answer.status}.`);
}

// --- asking again and again ----------------------------------------------------------------------

const show = view(confirmOrder);
let timer;
let turn = 0; // of several questions at a time only the newest is heard
let missed = 0;
let answeredAt = null;
let states = new Map();

async function poll() {
  clearTimeout(timer);
  const own = ++turn;
  try {
    const report = await ask(REPORT);
    if (own !== turn) return;
    show(report);
    announce(report.breakers);
    missed = 0;
    answeredAt = performance.now();
    setTouch("live", "Live");
    again(PERIOD);
  } catch (error) {
    if (own !== turn) return;
    if (error instanceof Refused && error.status === 401) {
      askForToken();
      return;
    }
    missed += 1;
    const wait = backoff(missed);
    lose(error, wait);
    again(wait);
  }
}

function again(seconds) {
  clearTimeout(timer);
  if (!document.hidden) timer = setTimeout(poll, seconds * 1000);
}

/** Return the seconds to wait after so many failures in a row: doubling, and never all pages at once. */
const backoff = (failures) => Math.min(LONGEST, 2 ** (failures - 1)) * (0.75 + Math.random() / 2);

function lose(error, wait) {
  setTouch("lost", "Lost touch");
  const refused = error instanceof Refused;
  write(byId("lost-title"), refused ? error.message : "The backend does not answer.");
  const old = answeredAt === null ? "" : `The figures are ${duration((performance.now() - answeredAt) / 1000)} old. `;
  write(byId("lost-text"), `${old}Asking again in ${duration(wait)}.`);
}

function setTouch(touch, text) {
  document.body.dataset.touch = touch;
  write(byId("touch-text"), text);
  byId("lost").hidden = touch !== "lost";
}

/** Tell those who do not see the page that a breaker has changed. */
function announce(breakers) {
  const changed = breakers.filter(({ name, state }) => states.has(name) && states.get(name) !== state);
  if (changed.length) write(byId("said"), changed.map(({ name, state }) => `${name} is ${stateWord(state)}`).join(", "));
  states = new Map(breakers.map(({ name, state }) => [name, state]));
}

byId("again").addEventListener("click", poll);
document.addEventListener("visibilitychange", () => (document.hidden ? clearTimeout(timer) : poll()));

// --- the token -----------------------------------------------------------------------------------

const asking = byId("ask");

function askForToken() {
  setTouch("locked", "Locked");
  const failure = byId("ask-failure");
  failure.hidden = sessionStorage.getItem(STORED) === null;
  write(failure, "This token does not open the monitoring.");
  sessionStorage.removeItem(STORED);
  if (!asking.open) asking.showModal();
  byId("token").value = "";
  byId("token").focus();
}

byId("ask-form").addEventListener("submit", (event) => {
  event.preventDefault();
  const token = byId("token").value.trim();
  if (!token) return;
  sessionStorage.setItem(STORED, token);
  asking.close();
  poll();
});
asking.addEventListener("cancel", (event) => event.preventDefault()); // there is nothing behind it to go back to

// --- what an operator orders ---------------------------------------------------------------------

const confirming = byId("confirm");
let ordered = null;

function confirmOrder(name, order) {
  ordered = { name, order };
  write(byId("confirm-title"), order.title(name));
  write(byId("confirm-text"), order.text);
  write(byId("confirm-yes"), order.word);
  byId("confirm-failure").hidden = true;
  confirming.showModal();
  byId("confirm-no").focus();
}

byId("confirm-no").addEventListener("click", () => confirming.close());
byId("confirm-yes").addEventListener("click", async () => {
  const { name, order } = ordered;
  byId("confirm-yes").disabled = true;
  try {
    const { everywhere } = await ask(`/api/monitoring/breakers/${encodeURIComponent(name)}/${order.order}`, "POST");
    if (!everywhere) throw new Refused(200, "Done in one process only: the database does not answer, so the others have not heard of it.");
    confirming.close();
    write(byId("said"), `${order.word}: ${name}: done`);
  } catch (error) {
    const lost = "The backend does not answer: it may or may not have done it.";
    write(byId("confirm-failure"), error instanceof Refused ? error.message : lost);
    byId("confirm-failure").hidden = false;
  } finally {
    byId("confirm-yes").disabled = false;
    poll();
  }
});

poll();
