// The page of the search service. Texts of a corpus are not to be trusted: they reach the page as text nodes alone.

const SKELETON_AFTER = 150; // ms: a fast answer comes without a flicker
const SLOW_AFTER = 3000;
const SAME_KEYSTROKE = 30; // ms between Safari's compositionend and the keydown of the same Enter
const TINTS = 8; // as many as style.css has
const OVERLAP_AT = 10;
const COUNTS = [5, 10, 20, 50, 100];
const ENGINES = { hnsw: "HNSW", milvus: "Milvus" };

const $ = (id) => document.getElementById(id);
const form = $("search");
const box = $("query");
const view = $("view");

let info = null; // of the server
let state = { query: "", k: 10, index: "", compare: "", exact: false }; // what the address says
let run = null; // the newest search: whatever belongs to another one has no say any more
let draw = () => []; // makes what is in view, again when the language changes
let key = stored(() => sessionStorage, "key");

// ---- Words, theme

function stored(storage, name, value) {
  try { // a browser may forbid storage altogether
    if (value === undefined) return storage().getItem(name);
    storage().setItem(name, value);
  } catch {
    // then it is kept until the page is left
  }
  return value ?? null;
}

const words = Object.fromEntries([...$("words").content.children].map((entry) => [entry.dataset.key, entry.dataset]));
let language = stored(() => localStorage, "language") ?? (/^zh/i.test(navigator.language) ? "zh" : "en");
if (language !== "zh") language = "en";

function say(name, ...values) {
  return words[name][language].replace(/\{(\d)\}/g, (_, place) => values[place]);
}

const number = (value) => value.toLocaleString(language);
const foundWords = (count) => (count === 1 ? say("found_1") : say("found", number(count)));

function speak() {
  document.documentElement.lang = language === "zh" ? "zh-CN" : "en";
  for (const node of document.querySelectorAll("[data-say]")) node.textContent = say(node.dataset.say);
  for (const name of ["label", "placeholder", "title"]) {
    for (const node of document.querySelectorAll(`[data-say-${name}]`)) {
      const said = say(node.getAttribute(`data-say-${name}`));
      node.setAttribute(name === "label" ? "aria-label" : name, said);
      if (node.matches(".icon")) node.title = said;
    }
  }
  $("language").textContent = say("other_language");
  $("language").lang = language === "zh" ? "en" : "zh-CN";
  setTitle();
  if (info) fillControls();
}

function setTitle() {
  document.title = state.query ? `${shortened(state.query, 60)} · ${say("name")}` : say("name");
}

function setTheme(theme) {
  if (theme === "light" || theme === "dark") document.documentElement.dataset.theme = theme;
}

function isDark() {
  const { theme } = document.documentElement.dataset;
  return theme ? theme === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
}

// ---- Nodes

function make(tag, attributes = {}, ...children) {
  const svg = tag === "svg" || tag === "path";
  const node = svg ? document.createElementNS("http://www.w3.org/2000/svg", tag) : document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (value !== false && value != null) node.setAttribute(name, value === true ? "" : value);
  }
  node.append(...children.filter((child) => child != null)); // strings become text nodes
  return node;
}

function button(attributes, words, action) {
  const node = make("button", { type: "button", ...attributes }, words);
  node.addEventListener("click", action);
  return node;
}

function show(drawing) {
  draw = drawing;
  view.replaceChildren(...draw());
  measure();
  const first = view.querySelector(".result");
  if (first && run.fromResults) { // a search that began in the results goes on there
    run.fromResults = false;
    if (document.activeElement === document.body) first.focus();
  }
}

const announce = (words) => { $("status").textContent = words; };
const shortened = (text, length) => (text.length > length ? `${text.slice(0, length)}…` : text);

// ---- Texts: what they share with the query, and characters that would be invisible or turn the line around

const UNIT = /[\p{Script=Latin}\p{N}]+|\p{L}\p{M}*/gu; // a word of Latin letters, else one character
const COMMON = new Set("的了吗呢吧啊么是我你您他在有不个一这那和就都也要能会可以");
// line breaks and tabs are layout, U+200C and U+200D belong to words and emoji, the Arabic number signs are visible
const UNSEEN = /(?![\n\t\u200c\u200d\u0600-\u0605\u06dd])[\p{Cc}\p{Cf}\p{Cs}\p{Zl}\p{Zp}]/gu;

function units(text) {
  return [...text.matchAll(UNIT)].map((found) => (
    { start: found.index, end: found.index + found[0].length, text: found[0].toLowerCase() }));
}

const pairOf = (before, unit) => (before && before.end === unit.start ? `${before.text}\0${unit.text}` : null);

/** A function from a text to the runs it shares with the query; any common run of two is made of common pairs. */
function sharedWith(query) {
  const asked = units(query);
  const singles = new Set(asked.map((unit) => unit.text));
  const pairs = new Set(asked.map((unit, i) => pairOf(asked[i - 1], unit)).filter(Boolean));
  return (text) => {
    const found = units(text);
    const weights = found.map(({ text: unit }) => {
      if (!singles.has(unit) || COMMON.has(unit)) return "";
      if (/^[\p{Script=Latin}\p{N}]{2}/u.test(unit)) return "run";
      return /^\p{Script=Han}/u.test(unit) ? "single" : "";
    });
    found.forEach((unit, i) => {
      if (pairs.has(pairOf(found[i - 1], unit))) weights[i - 1] = weights[i] = "run";
    });
    return joined(found, weights);
  };
}

function joined(found, weights) {
  const runs = [];
  found.forEach(({ start, end }, i) => {
    const last = runs.at(-1);
    if (weights[i] && last?.weight === weights[i] && last.end === start) last.end = end;
    else if (weights[i]) runs.push({ start, end, weight: weights[i] });
  });
  return runs;
}

function visible(text) {
  const nodes = [];
  let from = 0;
  for (const { 0: character, index } of text.matchAll(UNSEEN)) {
    const code = character.codePointAt(0).toString(16).toUpperCase().padStart(4, "0");
    nodes.push(text.slice(from, index), make("span", { class: "unseen-character" }, `U+${code}`));
    from = index + character.length;
  }
  return [...nodes, text.slice(from)];
}

function textNodes(text, shared) {
  const nodes = [];
  let from = 0;
  for (const { start, end, weight } of shared(text)) {
    nodes.push(...visible(text.slice(from, start)), make("mark", { class: weight }, text.slice(start, end)));
    from = end;
  }
  return [...nodes, ...visible(text.slice(from))];
}

// ---- Address

function readAddress() {
  const asked = new URLSearchParams(location.search);
  const k = Number.parseInt(asked.get("k") ?? "10", 10);
  return { query: asked.get("q")?.trim() ? asked.get("q") : "", k: k >= 1 ? k : 10, index: asked.get("index") ?? "",
    compare: asked.get("compare") ?? "", exact: ["1", "true"].includes(asked.get("exact")) };
}

/** `compare` names an index; the name of the searched one itself stands for its exact search. */
function address({ query, k, index, compare, exact }) {
  const parameters = { q: query, index, k, ...(compare && { compare }), ...(exact && { exact: 1 }) };
  return query ? `/?${new URLSearchParams(parameters)}` : "/";
}

// ---- Controls

const indexNamed = (name) => info?.indexes.find((index) => index.name === name);
const isFlat = (name) => indexNamed(name)?.engine === "flat";
const engineName = (engine) => ENGINES[engine] ?? (engine === "flat" ? say("engine_flat") : engine);

function fillSelect(select, options, chosen) {
  if (!options.some(([value]) => value === chosen)) options.push([chosen, chosen]); // as the address has it
  select.replaceChildren(...options.map(([value, words, off]) => make("option", { value, disabled: off }, words)));
  select.value = chosen;
}

function fillControls() {
  const { index, compare, k } = state;
  const names = info.indexes.map(({ name }) => name);
  const exactly = [index, say("compare_exact"), isFlat(index)];
  fillSelect($("index"), names.map((name) => [name, name]), index);
  fillSelect($("compare"), [["", say("compare_none")], exactly,
    ...names.filter((name) => name !== index).map((name) => [name, name])], compare);
  const counts = [...new Set([...COUNTS.filter((count) => count <= info.limits.k), k])].sort((a, b) => a - b);
  fillSelect($("k"), counts.map((count) => [`${count}`, `${count}`]), `${k}`);
  $("exact").checked = state.exact;
  $("exact").disabled = compare ? compare === index || (isFlat(index) && isFlat(compare)) : isFlat(index);
  $("version").textContent = info.version;
}

function chosen() {
  const index = $("index").value;
  let compare = $("compare").value;
  if (index !== state.index) { // "exact search of this index" stays that; an index does not stand beside itself
    if (compare && compare === state.index) compare = index;
    else if (compare === index) compare = state.index;
  }
  return { query: state.query, k: Number($("k").value) || state.k, index,
    compare: compare === index && isFlat(index) ? "" : compare, exact: $("exact").checked };
}

function choose() {
  state = { ...chosen(), query: state.query && (box.value.trim() ? box.value : state.query) };
  fillControls();
  if (state.query) searchFor(state.query);
  else show(start);
}

// ---- Asking the server

class Failure extends Error {
  constructor(kind, message = "", wait = 0) {
    super(message);
    Object.assign(this, { kind, wait });
  }
}

function secondsToWait(header) {
  const seconds = /^\d+$/.test(header ?? "") ? Number(header) : (Date.parse(header) - Date.now()) / 1000;
  return Math.min(Math.max(Math.ceil(seconds) || 1, 1), 600);
}

async function ask(path, signal, body) {
  const headers = { ...(body && { "Content-Type": "application/json" }) };
  if (key) headers.Authorization = `Bearer ${key}`;
  const sent = body ? { method: "POST", body: JSON.stringify(body) } : {};
  let response;
  try {
    response = await fetch(path, { ...sent, headers, signal });
  } catch {
    throw new Failure(navigator.onLine ? "unreachable" : "offline");
  }
  const answer = await response.json().catch(() => null);
  if (response.ok && answer) return answer;
  const message = answer?.error?.message ?? say("unreadable", response.status);
  if (response.status === 401) throw new Failure("key", message);
  if (response.status === 429) throw new Failure("busy", message, secondsToWait(response.headers.get("Retry-After")));
  throw new Failure("failed", message);
}

/** What the server would refuse. Asking it all the same would leave an error in the browser's console. */
function faultOf({ query, index, compare }) {
  const unknown = [index, compare].find((name) => name && !indexNamed(name));
  if (unknown) return say("no_index", unknown);
  const { length } = [...query];
  if (length > info.limits.characters) return say("too_long", number(length), number(info.limits.characters));
  if (/\p{Cs}/u.test(query) || !/[\p{L}\p{M}\p{N}\p{P}\p{S}]/u.test(query)) return say("no_text");
  return "";
}

function wantedColumns() {
  const { index, compare, exact } = state;
  if (!compare) return [{ index, exact }];
  if (compare === index) return [{ index, exact: false }, { index, exact: true }];
  return [{ index, exact }, { index: compare, exact }];
}

async function askColumn({ index, exact }, signal) {
  const began = performance.now();
  const asked = { text: state.query, k: state.k, index, exact };
  const { answers, milliseconds, engine } = await ask("/search", signal, asked);
  const results = answers[0].results.map(({ id, score, text }) => ({ id, score, text }));
  return { index, engine, results, milliseconds, trip: performance.now() - began };
}

function begin() {
  run?.end();
  const controller = new AbortController();
  const ours = { signal: controller.signal, timers: [], fromResults: view.contains(document.activeElement) };
  ours.end = () => { controller.abort(); ours.timers.forEach(clearTimeout); };
  ours.later = (wait, action) => ours.timers.push(setTimeout(action, wait));
  ours.later(SKELETON_AFTER, () => { announce(say("searching")); show(() => skeleton(false)); });
  ours.later(SLOW_AFTER, () => { announce(say("slow")); show(() => skeleton(true)); });
  return ours;
}

/** Shows what the address says. `again` is true for the one repetition that an overloaded server asked for. */
async function go(again = false) {
  const ours = run = begin();
  view.setAttribute("aria-busy", "true");
  setTitle();
  let drawing;
  try {
    info ??= await ask("/info", ours.signal);
    if (run !== ours) return;
    state.index ||= info.indexes[0].name;
    state.k = Math.min(state.k, info.limits.k);
    fillControls();
    if (state.query && faultOf(state)) throw new Failure("unfit");
    const columns = [];
    // one after the other, so that neither search takes the processor from the other whose time stands beside it
    for (const wanted of state.query ? wantedColumns() : []) {
      columns.push(await askColumn(wanted, ours.signal));
      if (run !== ours) return;
    }
    drawing = state.query ? resultsOf(columns) : start;
  } catch (error) {
    if (run !== ours) return; // overtaken: it has nothing to say
    drawing = problem(error, again, ours);
  }
  ours.timers.forEach(clearTimeout);
  view.setAttribute("aria-busy", "false");
  drawing.before?.();
  show(drawing);
}

/** Searches for a text, and puts that into the address: the same search again adds no step to the history. */
function searchFor(text) {
  if (!text.trim()) return;
  state = { ...(info ? chosen() : state), query: text };
  box.value = text;
  $("clear").hidden = false;
  const place = address(state);
  if (place !== location.pathname + location.search) history.pushState(null, "", place);
  if (matchMedia("(hover: none)").matches) box.blur(); // the keyboard of a telephone covers the results
  go();
}

function searchLike(text) {
  const characters = [...text];
  const limit = info.limits.characters;
  searchFor(characters.length > limit ? characters.slice(0, limit).join("") : text);
  run.cut = characters.length > limit;
}

function restore() {
  state = readAddress();
  box.value = state.query;
  $("clear").hidden = !state.query;
  go();
}

// ---- Views: each is a list of nodes

function start() {
  const { texts, dimension, engine, precision, examples } = indexNamed(state.index) ?? info.indexes[0];
  announce("");
  return [make("div", { class: "start" },
    make("h2", {}, say("try")),
    make("ul", { class: "examples", role: "list" }, ...(examples ?? []).map((text) => make("li", {},
      button({ class: "example" }, make("bdi", {}, ...visible(text)), () => searchFor(text))))),
    make("p", { class: "facts" }, say("about", number(texts), dimension, engineName(engine), precision)))];
}

function skeleton(slow) {
  const lines = () => Array.from({ length: Math.min(state.k, 8) }, () => make("div", { class: "bone" }));
  return [make("p", { class: "slow" }, slow ? say("slow") : ""),
    make("div", { class: "columns", "aria-hidden": "true" },
      ...(state.query ? wantedColumns() : [0]).map(() => make("div", { class: "column" }, ...lines())))];
}

function notice(title, said, ...more) {
  return make("div", { class: "notice" }, make("h2", {}, title),
    said && make("p", {}, make("bdi", {}, ...visible(said))), ...more);
}

const retry = () => button({ class: "primary" }, say("retry"), () => go());

function problem(error, again, ours) {
  if (!(error instanceof Failure)) console.error(error);
  const kind = error.kind ?? "broken";
  if (kind === "key") return keyForm();
  if (kind === "busy" && !again) return countdown(error, ours);
  if (kind === "unreachable") askUntilBack(ours);
  const away = kind === "offline" || kind === "unreachable";
  ours.away = away;
  const unfit = kind === "unfit"; // said anew when the language changes
  const said = () => (
    away ? say(`${kind}_more`) : unfit ? faultOf(state) : error.kind ? error.message : say("broken"));
  return () => alerted(notice(say(away || kind === "busy" ? kind : "failed"), said(), unfit ? null : retry()));
}

function alerted(node) {
  node.setAttribute("role", "alert");
  announce("");
  return [node];
}

function countdown(failure, ours) {
  let left = failure.wait;
  const seconds = () => say("busy_more", left);
  const tick = () => {
    left -= 1;
    if (left <= 0) return go(true);
    for (const node of view.querySelectorAll(".countdown")) node.textContent = seconds();
    ours.later(1000, tick);
  };
  const drawing = () => {
    announce(`${say("busy")} ${seconds()}`); // once: a live region that counts would not stop talking
    return [notice(say("busy"), failure.message, make("p", { class: "countdown" }, seconds()))];
  };
  drawing.before = () => ours.later(1000, tick); // after the timers of the search that failed are gone
  return drawing;
}

/** The network is there and the server is not, as in a restart: /healthz tells when it is back. */
async function askUntilBack(ours) {
  for (let wait = 1000; run === ours; wait = Math.min(wait * 2, 15000)) {
    await new Promise((done) => { setTimeout(done, wait); });
    const healthy = run === ours && await fetch("/healthz").then((answer) => answer.ok, () => false);
    if (healthy && run === ours) go();
  }
}

function keyForm() {
  const refused = Boolean(key);
  return () => {
    const input = make("input", { id: "key", type: "password", autocomplete: "off", required: true });
    const said = make("p", { class: "wrong", role: "alert" }, refused ? say("key_wrong") : "");
    const asked = make("form", { class: "key" }, make("label", { for: "key" }, say("key_label")),
      make("div", { class: "box" }, input, make("button", { class: "primary" }, say("key_send"))), said);
    asked.addEventListener("submit", (event) => {
      event.preventDefault();
      const typed = input.value.trim();
      if (!/^[\x21-\x7e]+$/.test(typed)) { // a header cannot carry it
        said.textContent = say("key_wrong");
        return;
      }
      key = typed;
      stored(() => sessionStorage, "key", key);
      go();
    });
    return alerted(notice(say("key"), say("key_more"), asked));
  };
}

// ---- Results, one column or two

/** Results of one index are the same by id, those of two by text; the nth copy of a text is joined to the nth. */
function joinColumns([left, right]) {
  const keyOf = ({ id, text }) => (left.index === right.index ? `${id}` : text);
  const places = new Map();
  left.results.forEach((result, i) => {
    const key = keyOf(result);
    places.set(key, [...(places.get(key) ?? []), i]);
  });
  left.results.forEach((result) => { result.partner = null; });
  right.results.forEach((result, i) => {
    const place = places.get(keyOf(result))?.shift();
    result.partner = place ?? null;
    if (place !== undefined) left.results[place].partner = i;
  });
  let tint = 0;
  for (const result of left.results) {
    if (result.partner !== null) result.tint = right.results[result.partner].tint = tint++ % TINTS;
  }
}

function overlapWords([left, right]) {
  const deepest = Math.max(left.results.length, right.results.length);
  const isWithin = (depth) => ({ partner }) => partner !== null && partner < depth;
  const same = (depth) => left.results.slice(0, depth).filter(isWithin(depth)).length;
  const parts = [say("overlap", same(OVERLAP_AT), Math.min(OVERLAP_AT, deepest))];
  if (deepest > OVERLAP_AT) parts.push(say("overlap_all", same(deepest), deepest));
  if (left.index === right.index) {
    const missed = right.results.filter(({ partner }) => partner === null).length;
    parts.push(say("missed_count", engineName(left.engine), missed));
  }
  return parts.join(language === "zh" ? "，" : ", ");
}

function resultsOf(columns) {
  if (columns.every(({ results }) => !results.length)) {
    return () => { announce(say("nothing")); return [notice(say("nothing"), say("nothing_more"))]; };
  }
  const query = state.query;
  const ours = run;
  if (columns.length > 1) joinColumns(columns);
  return () => {
    const cut = ours.cut ? say("cut", number(info.limits.characters)) : "";
    const overlap = columns.length > 1 ? overlapWords(columns) : "";
    const counts = columns.map(({ index, results }) => (
      columns.length > 1 ? `${index}: ${foundWords(results.length)}` : foundWords(results.length)));
    announce([...counts, overlap, cut].filter(Boolean).join(". "));
    const shared = sharedWith(query);
    const lists = columns.map((column, i) => columnNode(column, i, columns, shared));
    lists[0].querySelector(".result")?.setAttribute("tabindex", "0");
    if (columns.length > 1) lists.push(make("svg", { class: "lines", "aria-hidden": "true" }));
    return [overlap && make("p", { class: "overlap" }, overlap), cut && make("p", { class: "facts" }, cut),
      make("div", { class: "columns" }, ...lists)].filter(Boolean);
  };
}

function columnNode(column, place, columns, shared) {
  const engine = engineName(column.engine);
  return make("section", { class: "column", "aria-label": `${column.index} (${engine})` },
    make("div", { class: "head" },
      make("h2", {}, make("bdi", {}, column.index), make("span", { class: "engine" }, engine),
        make("span", { class: "found" }, foundWords(column.results.length))),
      timesNode(column)),
    make("ol", { class: "results", role: "list" },
      ...column.results.map((result, i) => resultNode(result, i, moveNode(result, i, place, columns), shared))),
    column.results.length ? null : make("p", { class: "facts" }, say("nothing")));
}

function timesNode({ milliseconds: { encode, search }, trip }) {
  const digits = (value) => (value < 100 ? value.toFixed(value < 10 ? 2 : 1) : value.toFixed(0));
  const rest = Math.max(trip - encode - search, 0);
  const bar = make("span", { class: "stack", "aria-hidden": "true" });
  for (const [kind, share] of [["encode", encode], ["find", search], ["trip", rest]]) {
    const piece = make("i", { class: kind });
    piece.style.flexGrow = share; // from script: the server's policy forbids style attributes
    bar.append(piece);
  }
  const parts = [["encode", encode], ["find", search], ["trip", trip]];
  return make("p", { class: "times" }, bar, ...parts.map(([kind, value]) => make("span", { class: `time ${kind}` },
    `${say(kind)} `, make("b", {}, say("ms", digits(value))))));
}

/** How the second column differs from the first, and what the first alone has. */
function moveNode(result, i, place, columns) {
  if (columns.length < 2) return null;
  const same = columns[0].index === columns[1].index;
  if (result.partner === null) {
    if (place === 0) return make("span", { class: "move only" }, say("only"));
    return same ? make("span", { class: "move missed" }, say("missed", engineName(columns[0].engine)))
      : make("span", { class: "move new" }, say("new"));
  }
  const moved = result.partner - i;
  const words = place === 0 ? "" : moved > 0 ? `↑${moved}` : moved < 0 ? `↓${-moved}` : "=";
  const title = say("partner", result.partner + 1);
  return make("span", { class: "move", title }, words, make("span", { class: "chip" }, `#${result.partner + 1}`));
}

function resultNode({ text, score, tint, partner = null }, i, move, shared) {
  const body = make("bdi", { class: "text" }, ...textNodes(text, shared));
  const bar = make("span", { class: "meter", "aria-hidden": "true" }, make("i"));
  bar.firstChild.style.width = `${Math.min(Math.max(score, 0), 1) * 100}%`;
  const opener = button({ class: "quiet opener", "aria-expanded": "false", hidden: true }, "", () => {
    const open = node.classList.toggle("open");
    opener.setAttribute("aria-expanded", open);
    opener.textContent = open ? say("close") : say("open", number([...text].length));
    measure();
  });
  opener.textContent = say("open", number([...text].length));
  const said = say("like_this");
  const like = button({ class: "quiet icon like", title: said, "aria-label": said, tabindex: -1 }, "",
    () => searchLike(text));
  like.append(document.querySelector(".brand svg").cloneNode(true));
  const kind = tint === undefined ? "result" : `result tint-${tint}`;
  const node = make("li", { class: kind, tabindex: -1, "data-partner": partner },
    make("span", { class: "rank" }, `${i + 1}`),
    make("span", { class: "score", title: say("score", score) }, score.toFixed(3), bar),
    make("div", { class: "words" }, body, opener), move, like);
  node.searched = text;
  return node;
}

// ---- Layout that depends on sizes: which texts are cut, and the lines between equal ones

function measure() {
  const texts = [...view.querySelectorAll(".result:not(.open) .text")];
  const cut = texts.map((text) => text.scrollHeight > text.clientHeight + 1); // all read before any is written
  texts.forEach((text, i) => { text.nextSibling.hidden = !cut[i]; });
  drawLines();
}

function drawLines() {
  const svg = view.querySelector(".lines");
  if (!svg || getComputedStyle(svg).display === "none") return;
  const [left, right] = [...view.querySelectorAll(".results")].map((list) => [...list.children]);
  const frame = svg.getBoundingClientRect();
  svg.replaceChildren(...left.filter((node) => node.dataset.partner).map((node) => {
    const a = node.getBoundingClientRect();
    const b = right[node.dataset.partner].getBoundingClientRect();
    const [x1, x2] = [a.right - frame.left, b.left - frame.left];
    const [y1, y2] = [a, b].map(({ top, height }) => top - frame.top + Math.min(height / 2, 60));
    const middle = (x1 + x2) / 2;
    return make("path", { class: node.classList[1], "data-partner": node.dataset.partner,
      d: `M${x1} ${y1}C${middle} ${y1} ${middle} ${y2} ${x2} ${y2}` });
  }));
}

function light(event) { // a result and its equal in the other column
  const node = event.target.closest?.(".result");
  const lists = [...view.querySelectorAll(".results")].map((list) => [...list.children]);
  for (const lit of view.querySelectorAll(".lit")) lit.classList.remove("lit");
  if (!node?.dataset.partner) return;
  const place = lists.findIndex((list) => list.includes(node));
  const equal = lists[1 - place][node.dataset.partner];
  const line = view.querySelector(`path[data-partner="${(place ? equal : node).dataset.partner}"]`);
  for (const lit of [node, equal, line]) lit?.classList.add("lit");
}

// ---- Keys

let compositionEnded = -Infinity;
box.addEventListener("compositionend", (event) => { compositionEnded = event.timeStamp; });
box.addEventListener("keyup", () => { compositionEnded = -Infinity; }); // the key that ended it is up: the next is real

/** Whether a key goes to the input method. Safari ends the composition before the keydown that ends it. */
function isOfComposition(event) {
  return event.isComposing || event.keyCode === 229 || event.timeStamp - compositionEnded < SAME_KEYSTROKE;
}

box.addEventListener("keydown", (event) => {
  if (isOfComposition(event)) {
    // the "go" key of a touch keyboard comes as an Enter within a composition, and is meant: the form is submitted
    const isLeft = event.keyCode === 229 || matchMedia("(pointer: coarse)").matches;
    if (event.key === "Enter" && !isLeft) event.preventDefault();
    return;
  }
  if (event.key === "Enter") {
    event.preventDefault(); // or the form would be submitted as well
    if (!event.repeat) searchFor(box.value);
  } else if (event.key === "ArrowDown" && view.querySelector(".result")) {
    event.preventDefault();
    (view.querySelector(".result[tabindex='0']") ?? view.querySelector(".result")).focus();
  } else if (event.key === "Escape") {
    event.preventDefault();
    if (box.value) clearBox();
    else box.blur();
  }
});

function clearBox() {
  box.value = "";
  $("clear").hidden = true;
}

function neighbour(node, direction) {
  const lists = [...view.querySelectorAll(".results")].map((list) => [...list.children]);
  const place = lists.findIndex((list) => list.includes(node));
  const i = lists[place].indexOf(node);
  if (direction === "ArrowUp") return lists[place][i - 1] ?? box;
  if (direction === "ArrowDown") return lists[place][i + 1];
  const other = lists[place + (direction === "ArrowRight" ? 1 : -1)];
  return other?.[Math.min(i, other.length - 1)];
}

function keyOnResult(event, node) {
  if (event.key.startsWith("Arrow")) {
    event.preventDefault();
    neighbour(node, event.key)?.focus();
  } else if (event.key === "Enter" && !event.repeat) {
    event.preventDefault();
    searchLike(node.searched);
  } else if (event.key === "Escape") {
    box.focus();
  } else if (event.key.toLowerCase() === "c" && navigator.clipboard) {
    navigator.clipboard.writeText(node.searched).then(() => announce(say("copied")), () => {});
  }
}

document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey || event.isComposing || event.keyCode === 229) return;
  if (event.target.matches?.(".result")) keyOnResult(event, event.target);
  if ((event.key === "/" || event.key === "、") && !event.target.closest?.("input, select, textarea")) {
    event.preventDefault();
    box.focus();
    box.select();
  }
});

view.addEventListener("focusin", (event) => {
  if (event.target.matches(".result")) {
    for (const node of view.querySelectorAll(".result[tabindex='0']")) node.tabIndex = -1;
    event.target.tabIndex = 0;
  }
  light(event);
});
view.addEventListener("pointerover", light);

// ---- Beginning

form.addEventListener("submit", (event) => { event.preventDefault(); searchFor(box.value); });
form.addEventListener("change", (event) => { if (event.target !== box && info) choose(); });
box.addEventListener("input", () => { $("clear").hidden = !box.value; });
$("clear").addEventListener("click", () => { clearBox(); box.focus(); });
$("language").addEventListener("click", () => {
  language = stored(() => localStorage, "language", language === "zh" ? "en" : "zh");
  speak();
  show(draw);
});
$("theme").addEventListener("click", () => {
  const theme = isDark() ? "light" : "dark";
  stored(() => localStorage, "theme", theme);
  setTheme(theme);
});
addEventListener("popstate", restore);
addEventListener("online", () => { if (run?.away) go(); });
new ResizeObserver(() => requestAnimationFrame(measure)).observe(view); // later, or it would see its own changes

setTheme(stored(() => localStorage, "theme"));
$("key_copy").hidden = !navigator.clipboard;
speak();
restore();
document.documentElement.dataset.ready = "";
if (!state.query && matchMedia("(hover: hover)").matches) box.focus(); // which nothing hidden could have
