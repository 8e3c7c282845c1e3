"use strict";

// Images that are on the page at once, and pictures that are fetched at once: a label must not wait for many.
const PER_PAGE = 60, AT_ONCE = 3;
const byId = (id) => document.getElementById(id);
const done = []; // the labels that can be undone: {item, before}
let items = [], names = {}, found = 0, elsewhere = 0, at = 0, cards = [], first = 0;

// ---- labels: shown at once, sent one after another, taken back where the ledger did not take them ----

let sending = Promise.resolve(), unsent = 0;

function send(item, label) {
  item.label = label;
  unsent += 1;
  const body = JSON.stringify({ source: item.source, page: item.page, label });
  sending = sending.then(() => post(body)).then(
    () => { item.kept = label; byId("failure").hidden = true; },
    (error) => { item.label = item.kept; show(item); fail(`The label of ${item.name} is not kept. ${error.message}`); },
  ).then(() => { unsent -= 1; count(); });
  show(item);
  count();
}

async function post(body) {
  let answer;
  try {
    answer = await fetch("label", {
      method: "POST", headers: { "Content-Type": "application/json" }, body, keepalive: true,
    });
  } catch {
    throw new Error("The page is not served any more: start photoflux review again.");
  }
  if (!answer.ok) throw new Error((await answer.json().catch(() => ({}))).error || `Status ${answer.status}.`);
}

function fail(text) {
  byId("failure").textContent = text;
  byId("failure").hidden = false;
}

function label(which) {
  const item = items[at];
  if (!item) return;
  done.push({ item, before: item.label });
  send(item, names[which]);
  move(at + 1);
}

function undo() {
  const last = done.pop();
  if (!last) return;
  move(items.indexOf(last.item));
  send(last.item, last.before);
}

// ---- what is seen ----

function add(parent, kind, name, text) {
  const made = document.createElement(kind);
  if (name) made.className = name;
  if (text !== undefined) made.textContent = text;
  parent.append(made);
  return made;
}

function words(item) {
  const before = item.before === null ? "" : `data: ${item.before} · `;
  return `${before}score ${item.score.toFixed(3)}`;
}

function kindOf(item) {
  return item.label === null ? "" : item.label === names.positive ? "is-positive" : "is-negative";
}

function card(item, index) {
  const made = document.createElement("div");
  made.setAttribute("role", "option");
  made.title = item.place;
  const well = add(made, "div", "well");
  const text = add(made, "div", "text");
  add(text, "span", "name", item.name);
  add(text, "span", "score", words(item));
  add(made, "span", "badge");
  made.addEventListener("click", () => move(index));
  made.addEventListener("dblclick", enlarge);
  return Object.assign(made, { well });
}

function show(item) {
  const index = items.indexOf(item), made = cards[index - first];
  if (made) {
    made.className = `item ${kindOf(item)}`;
    made.querySelector(".badge").textContent = item.label === null ? "" : item.label;
    made.querySelector(".badge").hidden = item.label === null;
    const state = item.label === null ? "not labelled" : `labelled ${item.label}`;
    made.setAttribute("aria-label", `${item.name}, ${words(item)}, ${state}`);
  }
  if (index === at && byId("large").open) showLarge();
}

function count() {
  const labelled = elsewhere + items.filter((item) => item.label !== null).length;
  byId("counted").textContent = `${labelled} of ${found} labelled`;
  byId("bar").max = Math.max(found, 1);
  byId("bar").value = labelled;
  const shown = items.length < found ? `; ${items.length} are shown, reload for others` : "";
  byId("state").textContent = unsent ? "saving …" : labelled ? `saved${shown}` : shown.slice(2);
}

function draw() {
  first = Math.floor(at / PER_PAGE) * PER_PAGE;
  const some = items.slice(first, first + PER_PAGE);
  cards = some.map((item, index) => card(item, first + index));
  byId("grid").replaceChildren(...cards);
  some.forEach(show);
  window.scrollTo(0, 0);
  const last = Math.ceil(items.length / PER_PAGE);
  byId("pages").textContent = last > 1 ? `page ${first / PER_PAGE + 1} of ${last}` : "";
}

function move(to) {
  if (!items.length) return;
  const before = cards[at - first];
  at = Math.min(Math.max(to, 0), items.length - 1);
  if (before) {
    before.setAttribute("aria-selected", "false");
    before.tabIndex = -1;
  }
  if (!cards[at - first]) draw();
  const now = cards[at - first];
  now.setAttribute("aria-selected", "true");
  now.tabIndex = 0;
  if (byId("large").open) showLarge();
  else now.focus({ preventScroll: true });
  now.scrollIntoView({ block: "nearest" });
  load();
}

function columns() {
  const top = cards[0].offsetTop;
  const next = cards.findIndex((each) => each.offsetTop > top);
  return next < 0 ? cards.length : next;
}

// ---- pictures: the nearest to the current one first ----

let loading = 0;

function address(item, size) {
  return `picture/${item.source}/${item.page}/${size}`;
}

function load() {
  while (loading < AT_ONCE) {
    const waiting = cards.map((made, index) => [Math.abs(first + index - at), index, made]);
    const next = waiting.filter(([, , made]) => !made.asked).sort((a, b) => a[0] - b[0] || a[1] - b[1])[0];
    if (!next) return;
    fetchPicture(next[2], items[first + next[1]]);
  }
}

function fetchPicture(made, item) {
  made.asked = true;
  loading += 1;
  const image = document.createElement("img");
  image.alt = "";
  const over = () => { loading -= 1; load(); };
  image.addEventListener("load", () => { made.well.replaceChildren(image); over(); });
  image.addEventListener("error", async () => {
    const answer = await fetch(address(item, "small")).catch(() => null);
    const said = answer && await answer.json().catch(() => null);
    made.well.replaceChildren();
    add(made.well, "p", "", (said && said.error) || "It cannot be shown.");
    over();
  });
  image.src = address(item, "small");
}

function enlarge() {
  if (!items.length) return;
  showLarge();
  byId("large").showModal();
}

function showLarge() {
  const item = items[at];
  byId("large").className = kindOf(item);
  byId("picture").alt = item.name;
  const wanted = new URL(address(item, "large"), location.href).href;
  if (byId("picture").src !== wanted) byId("picture").src = wanted;
  byId("large-name").textContent = item.name;
  const state = item.label === null ? "not labelled" : `labelled ${item.label}`;
  byId("large-text").textContent = [words(item), item.size, state].filter(Boolean).join(" · ");
}

// ---- keys ----

function toggle(id, open) {
  if (byId(id).open) byId(id).close();
  else open();
}

const KEYS = {
  p: () => label("positive"),
  n: () => label("negative"),
  s: () => move(at + 1),
  u: undo,
  j: () => move(at + 1),
  k: () => move(at - 1),
  arrowright: () => move(at + 1),
  arrowleft: () => move(at - 1),
  arrowdown: () => move(at + columns() < items.length ? at + columns() : at),
  arrowup: () => move(at - columns() >= 0 ? at - columns() : at),
  pagedown: () => move(first + PER_PAGE < items.length ? first + PER_PAGE : items.length - 1),
  pageup: () => move(first - PER_PAGE),
  home: () => move(0),
  end: () => move(items.length - 1),
  enter: () => toggle("large", enlarge),
  " ": () => toggle("large", enlarge),
  "?": () => toggle("help", () => byId("help").showModal()),
};

document.addEventListener("keydown", (event) => {
  const key = event.key.toLowerCase(), held = event.ctrlKey || event.metaKey;
  let action = event.altKey ? undefined : held ? (key === "z" && !event.shiftKey ? undo : undefined) : KEYS[key];
  // A button that has the focus is pressed by these.
  if (event.target.closest("button") && (key === "enter" || key === " ")) action = undefined;
  if (byId("help").open && key !== "?") action = undefined;
  if (!action || (event.repeat && "pnu".includes(key))) return;
  event.preventDefault();
  action();
});

function press(id, action) {
  byId(id).addEventListener("click", () => {
    action();
    if (cards[at - first] && !byId("large").open && !byId("help").open) cards[at - first].focus({ preventScroll: true });
  });
}

press("positive", KEYS.p);
press("negative", KEYS.n);
press("skip", KEYS.s);
press("undo", undo);
press("enlarge", enlarge);
press("keys", KEYS["?"]);
for (const id of ["large", "help"]) {
  byId(id).addEventListener("close", () => move(at));
  byId(id).addEventListener("click", (event) => { if (event.target === byId(id)) byId(id).close(); });
}

// ---- the beginning ----

async function begin() {
  const answer = await fetch("items");
  const given = await answer.json();
  if (!answer.ok) throw new Error(given.error);
  names = { positive: given.positive, negative: given.negative };
  items = given.items.map((item) => ({ ...item, kept: item.label }));
  found = given.found;
  elsewhere = given.labelled - items.filter((item) => item.label !== null).length;
  byId("heading").textContent = given.heading;
  for (const which of ["positive", "negative"]) {
    byId(which).querySelector("span").textContent = names[which];
    byId(`help-${which}`).textContent = `label it “${names[which]}”`;
  }
  byId("nothing").hidden = items.length > 0;
  count();
  move(Math.max(0, items.findIndex((item) => item.label === null)));
  document.body.dataset.ready = "yes";
}

begin().catch((error) => fail(`The images cannot be listed. ${error.message}`));
