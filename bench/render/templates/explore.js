"use strict";
(async () => {
const $ = (selector, root = document) => root.querySelector(selector);
const $$ = (selector, root = document) => [...root.querySelectorAll(selector)];

function make(tag, properties = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(properties)) {
    if (name in element) element[name] = value; else element.setAttribute(name, value);
  }
  element.append(...children);
  return element;
}

async function unpack(id) {
  const bytes = Uint8Array.from(atob($("#" + id).textContent.trim()), c => c.charCodeAt(0));
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
  return JSON.parse(await new Response(stream).text());
}

function fail(error) {
  const trouble = $("#trouble");
  trouble.textContent = `The page can't be shown: ${error.message || error}. It needs a browser of 2023 or newer.`;
  trouble.hidden = false;
}

// Data: a column is values, or levels with the code of each row.

const DATA = await unpack("data").catch(fail), CHARTS = await unpack("charts").catch(fail);
if (!DATA || !CHARTS) return;
const N = DATA.n, MANY = 12, BINS = 30, PAGE = 20, SHORTEST = 4;

function column(packed, n = N) {
  if (packed.values) return packed.values;
  if (!packed.codes) return Array(n).fill(packed.levels[0]);
  return packed.codes.map(code => packed.levels[code]);
}

const INFINITE = {"inf": Infinity, "-inf": -Infinity};
const numbers = new Map(), fields = new Map();
for (const each of DATA.numbers) {
  const values = column(each).map(v => v === null ? NaN : typeof v === "string" ? INFINITE[v] : v);
  const y = Float64Array.from(values);
  const known = y.filter(Number.isFinite);
  const axis = each.better ? `${each.words} (${each.better} is better)` : each.words;
  const lacking = y.reduce((sum, v) => sum + Number.isNaN(v), 0);
  numbers.set(each.name, {...each, y, axis, lacking, ...scaleOf(known)});
}
for (const each of DATA.fields) {
  fields.set(each.name, {...each, codes: each.codes || new Array(N).fill(0), varies: each.levels.length > 1});
}
const texts = Object.fromEntries(Object.entries(DATA.texts).map(([name, each]) => [name, column(each)]));
const origin = Object.fromEntries(Object.entries(DATA.origin).map(([name, each]) => [name, column(each)]));
const commands = column(DATA.commands), methods = Object.keys(DATA.methods);
const methodOf = Array.from({length: N}, (_, i) => methods.indexOf(at("method", i)));
const places = new Map(texts.id.map((id, i) => [id, i]));
const byLook = fields.get("method");
if (byLook.varies) {
  byLook.codes = byLook.codes.map(code => methods.indexOf(byLook.levels[code]));
  byLook.levels = methods;
}
const OWN = DATA.own && column(DATA.own), OTHERS = OWN ? OWN.filter(own => !own).length : 0;
const FACETS = [...fields.values()].filter(each => each.varies);

function at(name, i) {
  const field = fields.get(name);
  return field.levels[field.codes[i]];
}

function scaleOf(known) {
  // Errors span decades, and then equal steps are factors.
  if (!known.length) return {domain: null};
  let low = known.reduce((a, b) => Math.min(a, b)), high = known.reduce((a, b) => Math.max(a, b));
  const extent = [low, high], room = .02;  // so that no mark lies on the edge
  const sorted = Float64Array.from(known).sort();
  const p = share => sorted[Math.floor(share * (sorted.length - 1))];
  const log = low > 0 && (p(.95) / p(.05) >= 100 || high / low >= 1e4);
  const whole = !log && high - low <= BINS && known.every(Number.isInteger);
  if (whole) [low, high] = [low - .5, high + .5];
  else if (low === high) [low, high] = log || low > 0 ? [low / 1.5, high * 1.5] : [low - .5, high + .5];
  else if (log) [low, high] = [low / (high / low) ** room, high * (high / low) ** room];
  else [low, high] = [low - room * (high - low), high + room * (high - low)];
  return {domain: [low, high], extent, log, bins: whole ? high - low : BINS};
}

const toUnit = (scale, v) => scale.log
  ? Math.log(v / scale.domain[0]) / Math.log(scale.domain[1] / scale.domain[0])
  : (v - scale.domain[0]) / (scale.domain[1] - scale.domain[0]);
const fromUnit = (scale, u) => scale.log
  ? scale.domain[0] * (scale.domain[1] / scale.domain[0]) ** u
  : scale.domain[0] + u * (scale.domain[1] - scale.domain[0]);

function rounded(scale, v) {
  // As fine as a pixel of a wide chart.
  if (scale.log) return Number(v.toPrecision(3));
  const step = 10 ** Math.floor(Math.log10((scale.domain[1] - scale.domain[0]) / 400));
  return Number((Math.round(v / step) * step).toPrecision(12));
}

function shown(v) {
  if (v === null || v === undefined || Number.isNaN(v)) return "–";
  if (typeof v === "boolean") return v ? "yes" : "no";
  if (typeof v !== "number") return v === "" ? "(none)" : String(v);
  if (!Number.isFinite(v)) return v > 0 ? "∞" : "−∞";
  if (Number.isInteger(v)) return v.toLocaleString("en");
  const size = Math.abs(v);
  return size < 1e-3 || size >= 1e6 ? v.toExponential(2) : String(Number(v.toPrecision(4)));
}
const value = (name, v) => name === "seed" || typeof v !== "number" ? shown(v) : String(v);
const many = n => n.toLocaleString("en");

// State: everything that is selected, sorted and chosen. It stands in the address after #.

const ROLES = Object.keys(DATA.roles);
const MEASURES = ["first measure, across", "second measure, upward", "third measure"];
const fresh = () => ({roles: {...DATA.roles}, ranges: {}, lacks: {}, facets: {}, sort: ROLES.length
  ? [DATA.roles[ROLES[0]], numbers.get(DATA.roles[ROLES[0]]).better !== "lower"] : ["id", false],
  page: 0, run: null, fit: false, own: OTHERS > 0});
let state = fresh();

function toHash() {
  const q = new URLSearchParams(), start = fresh();
  for (const role of ROLES) if (state.roles[role] !== start.roles[role]) q.set(role, state.roles[role]);
  for (const [name, [low, high]] of Object.entries(state.ranges)) q.set("range." + name, `${low ?? ""}..${high ?? ""}`);
  for (const [name, how] of Object.entries(state.lacks)) q.set("value." + name, how);
  for (const [name, levels] of Object.entries(state.facets)) for (const level of levels) q.append("field." + name, JSON.stringify(level));
  if (String(state.sort) !== String(start.sort)) q.set("sort", (state.sort[1] ? "-" : "") + state.sort[0]);
  if (state.page) q.set("page", state.page + 1);
  if (state.own !== start.own) q.set("settings", "all");
  if (state.fit) q.set("heights", "selected");
  if (state.run !== null) q.set("run", texts.id[state.run]);
  return q.toString();
}

let strange = "";  // what the address or the search asked for and is not here

function fromHash(text) {
  // What this page does not know is left out, and told.
  const q = new URLSearchParams(text), found = fresh(), odd = [];
  const number = part => part.trim() !== "" && Number.isFinite(Number(part)) ? Number(part) : null;
  const plain = {
    sort(given) {
      const name = given.replace(/^-/, "");
      if (!COLUMNS.some(each => each.name === name)) return false;
      found.sort = [name, given.startsWith("-")];
    },
    page(given) {
      if (!(number(given) >= 1)) return false;
      found.page = Math.floor(number(given)) - 1;
    },
    settings(given) { if (given !== "all") return false; found.own = false; },
    heights(given) { if (given !== "selected") return false; found.fit = true; },
    run(given) {
      const runs = beginning(given);
      if (runs.length !== 1) return false;
      found.run = runs[0];
    },
  };
  for (const role of ROLES) plain[role] = given => {
    if (!numbers.has(given)) return false;
    found.roles[role] = given;
  };
  function dotted(key, given) {
    const dot = key.indexOf("."), [kind, name] = [key.slice(0, dot), key.slice(dot + 1)];
    if (kind === "range" && numbers.has(name)) {
      const parts = given.split(".."), [low, high] = parts.map(number);
      if ((low ?? high ?? null) !== null) found.ranges[name] = [low, high ?? null];
      return parts.length === 2 && parts.every(part => part === "" || number(part) !== null);
    }
    if (kind === "value" && numbers.has(name) && ["with", "without"].includes(given)) found.lacks[name] = given;
    else if (kind === "field" && fields.has(name)) {
      const level = fields.get(name).levels.find(each => JSON.stringify(each) === given);
      if (level === undefined) return false;
      (found.facets[name] ||= []).push(level);
    } else return false;
  }
  for (const [key, given] of q) {
    if ((Object.hasOwn(plain, key) ? plain[key](given) : dotted(key, given)) === false) odd.push(`${key}=${given}`);
  }
  const more = odd.length > 4 ? ` and ${odd.length - 4} more` : "";
  strange = odd.length ? `The address asks for what is not here: ${odd.slice(0, 4).map(each => each.slice(0, 60)).join(", ")}${more}.` : "";
  return found;
}

function beginning(digits) {
  // The run of this id, or those whose ids begin so.
  if (places.has(digits)) return [places.get(digits)];
  return digits.length < SHORTEST ? [] : texts.id.flatMap((id, i) => id.startsWith(digits) ? [i] : []);
}

let written = "";
function remember() {
  clearTimeout(remember.timer);
  remember.timer = setTimeout(() => {
    written = toHash();
    try { history.replaceState(null, "", written ? "#" + written : location.pathname + location.search); }
    catch { location.hash = written; }
  }, 150);
}

// Selection: for each row how many filters it fails.

const fails = new Uint8Array(N), passes = new Map();
let selected = [];

function filters() {
  const found = new Map(state.own ? [["own", true]] : []);
  for (const {name} of FACETS) if (state.facets[name]?.length) found.set("field." + name, state.facets[name]);
  for (const name of numbers.keys()) {
    if (state.lacks[name] || state.ranges[name]) found.set("range." + name, [state.lacks[name] || "", ...(state.ranges[name] || [null, null])]);
  }
  return found;
}

function pass(key, given) {
  const known = passes.get(key), told = JSON.stringify(given);
  if (known?.told === told) return known.rows;
  const dot = key.indexOf("."), name = key.slice(dot + 1), rows = new Uint8Array(N);
  if (key === "own") rows.set(OWN);
  else if (key.startsWith("field.")) {
    const {levels, codes} = fields.get(name), wanted = levels.map(level => given.includes(level));
    for (let i = 0; i < N; i++) rows[i] = wanted[codes[i]];
  } else {
    const {y} = numbers.get(name), [how, low, high] = given;
    for (let i = 0; i < N; i++) {
      const lacks = Number.isNaN(y[i]);
      rows[i] = how === "without" ? lacks : !lacks && (low === null || y[i] >= low) && (high === null || y[i] <= high);
    }
  }
  passes.set(key, {told, rows});
  return rows;
}

function select() {
  const active = [...filters()].map(([key, given]) => [key, pass(key, given)]);
  fails.fill(0);
  for (const [, rows] of active) for (let i = 0; i < N; i++) fails[i] += 1 - rows[i];
  selected = [];
  for (let i = 0; i < N; i++) if (!fails[i]) selected.push(i);
  for (const facet of FACETS) {
    // How many rows each value would add or keep, whatever is ticked in its own list.
    const own = active.find(([key]) => key === "field." + facet.name)?.[1];
    facet.counts = new Uint32Array(facet.levels.length);
    for (let i = 0; i < N; i++) if (!fails[i] || (own && fails[i] === 1 && !own[i])) facet.counts[facet.codes[i]] += 1;
  }
}

// Form

function labelled(text, control) {
  return make("label", {}, text, control);
}

function swatch(method) {
  const {colour, shape} = DATA.methods[method];
  const paths = {circle: "M-1,0A1,1,0,1,1,1,0A1,1,0,1,1,-1,0Z", square: "M-.9,-.9H.9V.9H-.9Z",
    "triangle-up": "M0,-1L1,.8H-1Z", "triangle-down": "M0,1L1,-.8H-1Z", diamond: "M0,-1.1L1,0L0,1.1L-1,0Z",
    cross: "M-1,-.4H-.4V-1H.4V-.4H1V.4H.4V1H-.4V.4H-1Z", "triangle-left": "M-1,0L.8,-1V1Z", "triangle-right": "M1,0L-.8,-1V1Z"};
  const svg = document.createElementNS("http://www.w3.org/2000/svg", "svg");
  const path = document.createElementNS("http://www.w3.org/2000/svg", "path");
  for (const [name, given] of Object.entries({width: 14, height: 14, viewBox: "-1.2 -1.2 2.4 2.4", "aria-hidden": "true"})) svg.setAttribute(name, given);
  path.setAttribute("d", paths[shape] || shape);
  path.setAttribute("fill", colour);
  svg.append(path);
  return svg;
}

function named(name, level) {
  if (name !== "method") return value(name, level);
  const {labels} = DATA.methods[level];
  return labels.length === 1 && labels[0] === level ? level : `${labels.join(", ")} (${level})`;
}

const known = ({words, name}) => words === name ? words : `${words} (${name})`;  // the name that commands take

function facetForm(facet) {
  const box = make("fieldset", {}, make("legend", {textContent: known(facet)}));
  box.dataset.field = facet.name;
  if (facet.levels.length > MANY) {
    const list = make("select", {multiple: true, size: 6, ariaLabel: facet.words});
    facet.levels.forEach((level, k) => list.append(make("option", {value: k})));
    list.addEventListener("change", () => chosen(facet, [...list.selectedOptions].map(each => facet.levels[each.value])));
    box.append(list);
    return box;
  }
  const wide = facet.levels.some(level => named(facet.name, level).length > 7);
  const ticks = make("div", {className: wide ? "ticks long" : "ticks"});
  facet.levels.forEach((level, k) => {
    const tick = make("input", {type: "checkbox", value: k});
    tick.addEventListener("change", () => chosen(facet, $$("input:checked", ticks).map(each => facet.levels[each.value])));
    const mark = facet.name === "method" ? [swatch(level)] : [];
    ticks.append(make("label", {className: "tick"}, tick, ...mark, named(facet.name, level), make("span", {className: "n"})));
  });
  box.append(ticks);
  return box;
}

function chosen(facet, levels) {
  if (levels.length) state.facets[facet.name] = levels; else delete state.facets[facet.name];
  changed();
}

let typed = null;  // the field whose number is being typed stays as it is typed

function rangeForm(role) {
  const box = make("fieldset", {}, make("legend", {textContent: role}));
  box.dataset.role = role;
  const which = make("select", {});
  for (const each of numbers.values()) which.append(make("option", {value: each.name, textContent: each.axis}));
  which.addEventListener("change", () => {
    state.roles[role] = which.value;
    changed(); build();
  });
  box.append(labelled(MEASURES[ROLES.indexOf(role)], which));
  const ends = ["least", "most"].map(end => {
    const input = make("input", {type: "text", inputMode: "decimal", autocomplete: "off", spellcheck: false});
    input.dataset.end = end;
    input.addEventListener("input", () => { typed = input; ranged(role, box); });
    return labelled(end, input);
  });
  box.append(make("div", {className: "two"}, ...ends));
  const how = make("select", {}, make("option", {value: "", textContent: "all runs"}),
    make("option", {value: "with", textContent: "runs with a value"}), make("option", {value: "without"}));
  how.addEventListener("change", () => {
    const name = state.roles[role];
    if (how.value) state.lacks[name] = how.value; else delete state.lacks[name];
    if (how.value === "without") delete state.ranges[name];
    changed();
  });
  box.append(make("label", {className: "how"}, "among ", how));
  return box;
}

function ranged(role, box) {
  const name = state.roles[role];
  const [low, high] = $$(".two input", box).map(input => {
    const v = numberOf(input);
    input.setAttribute("aria-invalid", String(Number.isNaN(v)));
    return Number.isNaN(v) ? null : v;
  });
  if (low === null && high === null) delete state.ranges[name];
  else { state.ranges[name] = [low, high]; if (state.lacks[name] === "without") delete state.lacks[name]; }
  changed();
}

function fillForm() {
  for (const box of $$("#ranges fieldset")) {
    const {role} = box.dataset, name = state.roles[role], each = numbers.get(name);
    const [which, how] = $$("select", box);
    which.value = name;
    $("legend", box).textContent = each.words;
    const range = state.ranges[name] || [null, null];
    $$(".two input", box).forEach((input, k) => {
      if (each.extent) input.placeholder = shown(each.extent[k]);
      if (input !== typed) {
        input.value = range[k] ?? "";
        input.setAttribute("aria-invalid", "false");
      }
    });
    how.options[2].textContent = `runs without a value (${many(each.lacking)})`;
    how.value = state.lacks[name] || "";
    $(".how", box).hidden = !each.lacking;
  }
  for (const facet of FACETS) {
    const box = $(`#facets fieldset[data-field="${facet.name}"]`), given = state.facets[facet.name] || [];
    for (const option of $$("option", box)) {
      const level = facet.levels[option.value];
      option.selected = given.includes(level);
      option.textContent = `${named(facet.name, level)} (${many(facet.counts[option.value])})`;
    }
    for (const tick of $$("input", box)) {
      tick.checked = given.includes(facet.levels[tick.value]);
      $(".n", tick.parentElement).textContent = many(facet.counts[tick.value]);
    }
  }
  const open = Object.values(state.roles);
  const others = [...new Set([...Object.keys(state.ranges), ...Object.keys(state.lacks)])].filter(name => !open.includes(name));
  $("#others").replaceChildren(...others.map(name => {
    const button = make("button", {type: "button", textContent: "Remove"});
    button.addEventListener("click", () => { delete state.ranges[name]; delete state.lacks[name]; changed(); });
    return make("p", {}, `${numbers.get(name).words}: ${limits(name)} `, button);
  }));
  $("#fit input").checked = state.fit;
  $("#own input").checked = state.own;
  typed = null;
  tell();
}

function limits(name) {
  // The filter of a measure, in words.
  const [low, high] = state.ranges[name] || [null, null], how = state.lacks[name];
  return [low === null ? "" : `at least ${low}`, high === null ? "" : `at most ${high}`,
    how ? `only runs ${how} a value` : ""].filter(Boolean).join(", ");
}

function tell() {
  // One line on all that was asked for and can't be.
  const found = strange ? [strange] : [];
  for (const [name, [low, high]] of Object.entries(state.ranges)) {
    if (low !== null && high !== null && low > high) found.push(`${numbers.get(name).words}: least, ${low}, is larger than most, ${high}.`);
  }
  for (const input of $$("#ranges .two input")) {
    if (Number.isNaN(numberOf(input))) found.push(`${numbers.get(state.roles[input.closest("fieldset").dataset.role]).words}: ${input.value} is no number, so it filters nothing.`);
  }
  const told = found.join(" ");
  if ($("#told").textContent !== told) $("#told").textContent = told;
}

function numberOf(input) {
  const text = input.value.trim().replace(",", ".");
  return text === "" ? null : Number(text);
}

// Charts

const views = new Map();
const css = name => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
function config() {
  const ink = css("--ink"), soft = css("--soft");
  return {background: null, font: "system-ui, sans-serif", view: {stroke: null},
    axis: {labelColor: ink, titleColor: ink, gridColor: "#80808040", domainColor: soft, tickColor: soft,
      titleFontWeight: "normal", titleFontSize: 12, labelFontSize: 11, labelOverlap: true, labelSeparation: 6}};
}

async function draw(element, spec) {
  const result = await vegaEmbed(element, {...spec, config: config()}, {actions: false, renderer: "canvas", tooltip: false});
  $("canvas", element)?.setAttribute("aria-hidden", "true");
  return result.view;
}

function axis(encoding, each, title = each.axis) {
  // The spec's own axis, with the title and the scale of this column.
  const ticks = each.log ? {format: "~g", tickCount: 6} : {tickCount: each.bins < BINS ? each.bins : 6};
  encoding.title = title;
  encoding.scale = {type: each.log ? "log" : "linear", domain: each.domain, nice: false, clamp: true};
  encoding.axis = {...encoding.axis, ...ticks};
}

function layers(spec, change) {
  const copy = structuredClone(spec);
  for (const layer of copy.layer || [copy]) change(layer.encoding);
  return copy;
}

function binned(name) {
  const each = numbers.get(name), {y, bins, domain} = each;
  if (each.bin) return each;
  each.bin = new Int16Array(N).fill(-1);
  for (let i = 0; i < N; i++) if (Number.isFinite(y[i])) {
    each.bin[i] = Math.min(bins - 1, Math.max(0, Math.floor(toUnit(each, y[i]) * bins)));
  }
  each.edges = Array.from({length: bins + 1}, (_, k) => fromUnit(each, k / bins));
  each.all = new Uint32Array(bins);
  for (const k of each.bin) if (k >= 0) each.all[k] += 1;
  return each;
}

const SEEN = 3;  // pixels
async function histogram(figure, role) {
  const name = state.roles[role], each = binned(name);
  $("figcaption", figure).textContent = each.words;
  figure.setAttribute("aria-label", `Histogram of ${each.words}; the form has fields for its range`);
  const spec = layers(CHARTS.histogram, encoding => axis(encoding.x, each, each.better ? `${each.better} is better` : ""));
  for (const layer of spec.layer) layer.encoding.y.scale = {domain: {expr: "[0, top]"}, nice: false};
  spec.params = [...(spec.params || []), {name: "top", value: Math.max(1, ...each.all)}];
  const view = await draw($(".chart", figure), spec);
  const bars = Array.from(each.all, (to, k) => ({lo: each.edges[k], hi: each.edges[k + 1], from: 0, to}));
  await view.data("all", bars).runAsync();
  listen(view, [["x", name]]);
  views.set(role, {view, update() {
    const counts = new Uint32Array(each.all.length * methods.length), some = [];
    for (const i of selected) if (each.bin[i] >= 0) counts[each.bin[i] * methods.length + methodOf[i]] += 1;
    const sums = new Uint32Array(each.all.length);
    for (let k = 0; k < each.all.length; k++) {
      let from = 0;
      for (let m = 0; m < methods.length; m++) {
        const n = counts[k * methods.length + m];
        if (n) some.push({k, lo: each.edges[k], hi: each.edges[k + 1], from, to: from += n, m});
      }
      sums[k] = from;
    }
    const top = Math.max(1, ...state.fit ? sums : each.all);
    // Few runs among many are drawn as high as can be seen.
    for (const bar of some) {
      const higher = Math.max(1, SEEN * top / view.height() / sums[bar.k]);
      bar.from *= higher; bar.to *= higher;
    }
    // Grey bars would fill the chart where heights are those of few selected runs.
    view.data("all", state.fit ? [] : bars).data("some", some).signal("top", top);
    brush(view, [["x", name]]);
    const lacking = selected.reduce((sum, i) => sum + (each.bin[i] < 0), 0);
    $(".said", figure).textContent = lacking ? `${many(lacking)} selected ${lacking === 1 ? "run is" : "runs are"} not drawn: without a finite value.` : "";
    return view.runAsync();
  }});
}

function brushed(view, channel, name) {
  // Where the selected range of a column lies, in pixels, null where nothing limits it.
  const range = state.ranges[name], each = numbers.get(name);
  if (!range) return null;
  const length = channel === "x" ? view.width() : view.height();
  return range.map((v, k) => {
    let unit = v === null ? k : each.log && v <= 0 ? 0 : toUnit(each, v);
    unit = Math.min(1, Math.max(0, unit));
    return channel === "x" ? unit * length : (1 - unit) * length;
  });
}

let dragged = null;  // the chart in which the pointer is down: its brush is the pointer's
function brush(view, sides) {
  // Moves the drawn brush to where the form says. A brush of two sides needs both.
  if (dragged?.contains(view.container())) return;
  const ends = sides.map(([channel, name]) => brushed(view, channel, name));
  const length = channel => channel === "x" ? [0, view.width()] : [view.height(), 0];
  sides.forEach(([channel], k) => {
    const wanted = ends.every(each => each === null) ? [] : ends[k] || length(channel);
    const now = view.signal("brush_" + channel) || [];
    const same = now.length === wanted.length && wanted.every((v, j) => Math.abs(v - [...now].sort((a, b) => channel === "x" ? a - b : b - a)[j]) < 1);
    if (!same) view.signal("brush_" + channel, wanted);
  });
}

function corner(view) {
  // Where the frame begins in the canvas, in pixels.
  const [x, y] = view.origin(), {left, top} = view.padding();
  return [x + left, y + top];
}

const EDGE = 12;  // pixels outside the frame where a drag may begin
function clamp(view) {
  // A drag that begins on an axis, or a little outside the frame, begins inside it.
  const canvas = $("canvas", view.container());
  canvas.addEventListener("pointerdown", event => {
    if (!event.isTrusted) return;
    const box = canvas.getBoundingClientRect(), [left, top] = corner(view);
    const within = (v, low, length) => Math.min(low + length - 1.5, Math.max(low + 1.5, v));
    const x = within(event.clientX, box.left + left, view.width()), y = within(event.clientY, box.top + top, view.height());
    const far = Math.max(Math.abs(x - event.clientX), Math.abs(y - event.clientY));
    if (!far || far > EDGE) return;
    event.stopImmediatePropagation();
    event.preventDefault();
    const {bubbles, button, buttons, pointerId, pointerType, isPrimary} = event;
    // Vega asks its last move what lies under the pointer.
    for (const kind of ["pointermove", "pointerdown"]) {
      canvas.dispatchEvent(new PointerEvent(kind, {bubbles, cancelable: true, button, buttons, pointerId, pointerType, isPrimary, clientX: x, clientY: y, view: window}));
    }
  }, true);
}

let clicked = false;  // the pointer went down on a mark and has not moved since
function listen(view, sides) {
  clamp(view);
  view.container().parentElement.addEventListener("pointerdown", () => { dragged = view.container().parentElement; });
  view.addSignalListener("width", () => { brush(view, sides); view.runAsync(); });
  view.addSignalListener("brush", () => {
    if (clicked) return;
    let differs = false;
    const found = {};
    for (const [channel, name] of sides) {
      const now = view.signal("brush_" + channel) || [], each = numbers.get(name);
      const length = channel === "x" ? view.width() : view.height();
      const units = pixels => [...pixels].map(v => channel === "x" ? v / length : 1 - v / length).sort((a, b) => a - b);
      const known = units(brushed(view, channel, name) || [0, length]);
      const far = given => given.some((u, k) => Math.abs(u - known[k]) * length > 1);
      // A brush without width is a click, unless the form says such a narrow range.
      const empty = now.length !== 2 || Math.abs(now[0] - now[1]) <= 1;
      const drawn = empty && (now.length !== 2 || far(units(now))) ? [0, 1] : units(now);
      differs ||= far(drawn);
      // At an edge the range is open, so that it keeps what lies there.
      found[name] = [drawn[0] * length < 2 ? null : rounded(each, fromUnit(each, drawn[0])),
        (1 - drawn[1]) * length < 2 ? null : rounded(each, fromUnit(each, drawn[1]))];
    }
    if (!differs) return;
    for (const [name, range] of Object.entries(found)) {
      if (range[0] === null && range[1] === null) delete state.ranges[name]; else state.ranges[name] = range;
      if (state.lacks[name] === "without") delete state.lacks[name];
    }
    changed();
  });
}

async function scatter() {
  const figure = $("#scatter"), [x, y] = ROLES.slice(0, 2).map(role => numbers.get(state.roles[role]));
  figure.hidden = !x?.domain || !y?.domain;
  if (figure.hidden) return views.delete("scatter");
  $("figcaption", figure).textContent = `${x.words} and ${y.words}`;
  const spec = layers(CHARTS.scatter, encoding => { axis(encoding.x, x); axis(encoding.y, y); });
  if (N < 1000) for (const layer of spec.layer.slice(0, 2)) layer.mark.size *= 3;
  spec.layer[2].encoding.color = {value: css("--ink")};
  const view = await draw($(".chart", figure), spec);
  // The same object stands for a run in every selection, so that Vega draws what has changed.
  const inside = (each, v) => Number.isFinite(v) && (!each.log || v > 0);
  const marks = Array.from({length: N}, (_, i) => inside(x, x.y[i]) && inside(y, y.y[i]) ? {u: x.y[i], v: y.y[i], m: methodOf[i], i} : null);
  const drawn = marks.filter(Boolean);
  await view.data("all", drawn.map(each => ({...each}))).runAsync();
  const sides = [["x", x.name], ["y", y.name]];
  listen(view, sides);
  let now = new Uint8Array(N);
  views.set("scatter", {view, x, y, marks, update() {
    const next = new Uint8Array(N), add = [], gone = new Set();
    for (const i of selected) if (marks[i]) next[i] = 1;
    for (let i = 0; i < N; i++) if (next[i] !== now[i]) { if (next[i]) add.push(marks[i]); else gone.add(marks[i]); }
    now = next;
    view.change("some", view.changeset().remove(each => gone.has(each)).insert(add));
    view.data("one", state.run !== null && marks[state.run] ? [{...marks[state.run]}] : []);
    brush(view, sides);
    const lacking = selected.reduce((sum, i) => sum + !marks[i], 0);
    $(".said", figure).textContent = lacking ? `${many(lacking)} selected ${lacking === 1 ? "run is" : "runs are"} not drawn: without a finite value of both.` : "";
    return view.runAsync();
  }});
}

let building = Promise.resolve();
function build() {
  // Draws charts anew: for other columns, or another colour scheme.
  building = building.then(async () => {
    views.clear();
    for (const figure of $$("#histograms figure")) {
      const each = numbers.get(state.roles[figure.dataset.role]);
      figure.hidden = !each.domain;
      if (each.domain) await histogram(figure, figure.dataset.role);
    }
    await scatter();
    update();
    await Promise.all([...views.values()].map(each => each.view.runAsync()));
    document.body.dataset.ready = "yes";
  }).catch(fail);
  return building;
}

function nearest(event, reach) {
  // The selected run whose mark is nearest to the pointer.
  const chart = views.get("scatter"), canvas = $("#scatter canvas");
  if (!chart || !canvas) return null;
  const box = canvas.getBoundingClientRect(), [left, top] = corner(chart.view);
  const px = event.clientX - box.left - left, py = event.clientY - box.top - top;
  let best = null, least = reach ** 2;
  for (const i of selected) {
    const mark = chart.marks[i];
    if (!mark) continue;
    const dx = toUnit(chart.x, mark.u) * chart.view.width() - px, dy = (1 - toUnit(chart.y, mark.v)) * chart.view.height() - py;
    const d = dx * dx + dy * dy;
    if (d < least) [best, least] = [i, d];
  }
  return best;
}

function pointer() {
  const area = $("#scatter .chart"), tip = $("#tip");
  let down = null;
  const moved = event => Math.hypot(event.clientX - down.x, event.clientY - down.y) > 4;
  addEventListener("pointerdown", event => {
    const mark = area.contains(event.target) ? nearest(event, 14) : null;
    down = {x: event.clientX, y: event.clientY, mark};
    // Vega takes a click for a brush without width, sooner or later: a click on a mark moves no brush.
    clicked = mark !== null;
  }, true);
  addEventListener("pointermove", event => {
    if (clicked && event.buttons && moved(event)) clicked = false;
  }, true);
  for (const end of ["pointerup", "pointercancel"]) addEventListener(end, () => { dragged = null; changed(); });
  addEventListener("pointerup", () => {
    if (!clicked) return;
    choose(down.mark, {show: true});
    changed();
  });
  area.addEventListener("pointermove", event => {
    const i = event.buttons ? null : nearest(event, 14);
    tip.hidden = i === null;
    if (i === null) return;
    tip.textContent = `${title(i)}: ${ROLES.map(role => `${numbers.get(state.roles[role]).words} ${shown(numbers.get(state.roles[role]).y[i])}`).join(", ")}`;
    tip.style.left = `${Math.min(event.clientX + 14, innerWidth - 290)}px`;
    tip.style.top = `${event.clientY + 16}px`;
  });
  area.addEventListener("pointerleave", () => { tip.hidden = true; });
  $("#scatter").addEventListener("keydown", event => {
    const chart = views.get("scatter"), step = {ArrowRight: ["u", 1], ArrowLeft: ["u", -1], ArrowUp: ["v", 1], ArrowDown: ["v", -1]}[event.key];
    if (!chart || !step) return;
    event.preventDefault();
    const there = selected.filter(i => chart.marks[i]).sort((a, b) => chart.marks[a][step[0]] - chart.marks[b][step[0]] || a - b);
    const from = there.indexOf(state.run);
    const to = from < 0 ? (step[1] > 0 ? 0 : there.length - 1) : Math.min(there.length - 1, Math.max(0, from + step[1]));
    if (there.length) { choose(there[to]); changed(); }
  });
}

// Table

const COLUMNS = [
  {name: "label", words: "method", text: true, of: i => texts.label[i]},
  ...["lam", "seed"].filter(name => fields.has(name)).map(name => ({name, words: fields.get(name).words, of: i => at(name, i)})),
  ...[...numbers.values()].filter(each => Object.values(DATA.roles).includes(each.name) || each.levels?.length !== 1)
    .map(each => ({name: each.name, words: each.words, number: true, of: i => each.y[i]})),
  ...FACETS.filter(each => !["method", "lam", "seed"].includes(each.name))
    .sort((a, b) => (b.name === "status") - (a.name === "status"))
    .map(each => ({name: each.name, words: each.words, text: typeof each.levels[0] === "string", of: i => at(each.name, i)})),
  {name: "id", words: "id", text: true, of: i => texts.id[i]},
];
const HELD = ["label", "lam", "seed"];
const SHOWN = 6;  // measures that the table shows; the chosen run shows all
let order = [], sorted = "", rows = [];

function compare(a, b) {
  const no = [a, b].map(v => v === null || v !== v);
  if (no[0] || no[1]) return no[0] - no[1];
  return a < b ? -1 : a > b ? 1 : 0;
}

function sort() {
  // Rows without a value come last, whatever the direction.
  const told = String(state.sort);
  if (told !== sorted) {
    const {of} = COLUMNS.find(each => each.name === state.sort[0]) || COLUMNS[0], sign = state.sort[1] ? -1 : 1;
    const keys = Array.from({length: N}, (_, i) => of(i)), lacks = v => v === null || v !== v;
    order = Array.from({length: N}, (_, i) => i).sort((a, b) => (lacks(keys[a]) || lacks(keys[b]) ? 1 : sign) * compare(keys[a], keys[b]) || a - b);
    sorted = told;
  }
  rows = order.filter(i => !fails[i]);
}

function visible() {
  const first = Object.values(state.roles), measures = COLUMNS.filter(each => each.number).map(each => each.name);
  const kept = new Set([...first, ...measures.filter(name => !first.includes(name))].slice(0, Math.max(SHOWN, first.length)));
  kept.add(state.sort[0]);
  const place = each => HELD.includes(each.name) ? 0 : first.includes(each.name) ? 1 : each.name === "id" ? 4 : each.number ? 3 : 2;
  return COLUMNS.filter(each => !each.number || kept.has(each.name)).sort((a, b) => place(a) - place(b));
}

function hold() {
  // The first columns and the sorted one stay in view while the table is scrolled sideways.
  const sticky = narrow() && innerWidth <= 800 ? HELD.slice(0, 1) : HELD;
  const heads = $$("#table th");
  let left = 0;
  heads.forEach((th, k) => {
    const held = sticky.includes(th.dataset.name), sorted = th.dataset.name === state.sort[0];
    for (const cell of $$(`#table tr > :nth-child(${k + 1})`)) {
      cell.classList.toggle("held", held || sorted);
      cell.style.left = held || sorted ? `${left}px` : "";
      cell.style.right = sorted && !held ? "0" : "";
    }
    if (held) left += th.offsetWidth;
  });
}

const MOST = .75, TIMES = 1.5;
function common() {
  // What all selected runs have in common of what varies among all runs, and what most of them
  // have: a share of MOST at least, and TIMES that of all runs.
  const n = selected.length, told = [], most = [];
  for (const {name, words, codes} of FACETS) {
    const counts = new Map();
    for (const i of selected) counts.set(codes[i], (counts.get(codes[i]) || 0) + 1);
    const [code, count] = [...counts].reduce((best, each) => each[1] > best[1] ? each : best, [null, 0]);
    if (!count) continue;
    const setting = `${words} ${value(name, at(name, selected.find(i => codes[i] === code)))}`;
    if (count === n) told.push(setting);
    if (count === n || n < 4 || count / n < MOST) continue;
    const all = codes.reduce((sum, each) => sum + (each === code), 0) / N;
    if (count / n >= TIMES * all) most.push(`${setting} (${many(count)} of ${many(n)}; of all runs ${(100 * all).toFixed(0)} %)`);
  }
  const lines = [`In common: ${told.join(", ") || "nothing that varies"}`, ...(most.length ? [`mostly ${most.join(", ")}`] : [])];
  $("#common").textContent = n ? lines.join("; ") : "";
}

function table() {
  sort();
  const pages = Math.max(1, Math.ceil(rows.length / PAGE)), cells = visible();
  state.page = Math.min(state.page, pages - 1);
  const head = $("thead"), body = $("#table tbody");
  const told = cells.map(each => each.name).join();
  if (head.dataset.told !== told) {
    head.dataset.told = told;
    head.replaceChildren(make("tr", {}, ...cells.map(each => {
      const button = make("button", {type: "button", textContent: each.words});
      button.addEventListener("click", () => {
        const lower = numbers.get(each.name)?.better;
        state.sort = state.sort[0] === each.name ? [each.name, !state.sort[1]] : [each.name, lower === "higher"];
        state.page = 0;
        changed();
      });
      const th = make("th", {scope: "col", className: each.text ? "text" : ""}, button);
      th.dataset.name = each.name;
      return th;
    })));
  }
  for (const th of $$("th", head)) th.setAttribute("aria-sort", th.dataset.name !== state.sort[0] ? "none" : state.sort[1] ? "descending" : "ascending");
  const page = rows.slice(state.page * PAGE, (state.page + 1) * PAGE);
  const focused = document.activeElement?.closest?.("#table tbody tr")?.dataset.i;
  const reach = page.includes(state.run) ? state.run : page[0];
  body.replaceChildren(...page.map(i => {
    const tr = make("tr", {tabIndex: i === reach ? 0 : -1}, ...cells.map(each => {
      const v = each.of(i);
      return make("td", {className: each.text ? "text" : "", textContent: each.number ? shown(v) : value(each.name, v)});
    }));
    tr.dataset.i = i;
    tr.setAttribute("aria-selected", String(i === state.run));
    return tr;
  }));
  hold();
  common();
  if (focused !== undefined) ($(`tr[data-i="${focused}"]`, body) || $("tr", body))?.focus({preventScroll: true});
  $("#pager span").textContent = rows.length ? `Runs ${many(state.page * PAGE + 1)} to ${many(state.page * PAGE + page.length)} of ${many(rows.length)}` : "No run is selected";
  for (const button of $$("#pager button")) {
    const back = ["first", "back"].includes(button.dataset.go);
    button.disabled = back ? state.page === 0 : state.page >= pages - 1;
  }
}

function tableEvents() {
  const body = $("#table tbody");
  body.addEventListener("click", event => {
    const row = event.target.closest("tr");
    if (row) { choose(Number(row.dataset.i), {show: true}); changed(); focusRow(Number(row.dataset.i)); }
  });
  body.addEventListener("keydown", event => {
    const row = event.target.closest("tr");
    if (!row) return;
    const i = Number(row.dataset.i), here = rows.indexOf(i);
    if (event.key === "Enter" || event.key === " ") {
      event.preventDefault();
      choose(i); changed();
      $("#detail").focus();
      return;
    }
    const to = {ArrowDown: here + 1, ArrowUp: here - 1, PageDown: here + PAGE, PageUp: here - PAGE, Home: 0, End: rows.length - 1}[event.key];
    if (to === undefined) return;
    event.preventDefault();
    const next = rows[Math.min(rows.length - 1, Math.max(0, to))];
    state.page = Math.floor(rows.indexOf(next) / PAGE);
    choose(next); changed(); focusRow(next);
  });
  $("#pager").addEventListener("click", event => {
    const last = Math.ceil(rows.length / PAGE) - 1, go = event.target.dataset?.go;
    if (!go) return;
    state.page = {first: 0, back: Math.max(0, state.page - 1), next: Math.min(last, state.page + 1), last}[go];
    changed();
  });
  $("#detail").addEventListener("keydown", event => {
    if (event.key === "Escape" && state.run !== null) back();
  });
}

function focusRow(i) {
  table();
  const row = $(`#table tr[data-i="${i}"]`);
  row?.focus({preventScroll: true});
  row?.scrollIntoView({block: "nearest", inline: "nearest"});
}

function back() {
  const here = rows.indexOf(state.run);
  if (here >= 0) { state.page = Math.floor(here / PAGE); focusRow(state.run); } else $("#table").focus();
  remember();
}

// Chosen run

const title = i => `${texts.label[i]}, λ ${value("lam", at("lam", i))}, seed ${at("seed", i)}`;
const narrow = () => matchMedia("(max-width: 1250px)").matches;

function choose(i, {show = false} = {}) {
  state.run = i;
  detail();
  if (show && narrow()) $("#detail").scrollIntoView({block: "start"});
}

function command(i) {
  return `python -m bench.run --id ${texts.id[i]}${commands[i]}`;
}

function detail() {
  const about = $("#about"), i = state.run;
  if (i === null) {
    document.body.classList.remove("one");
    $("#chosen").textContent = "No run is chosen";
    about.replaceChildren(make("p", {className: "said", textContent: "Choose a run: click on a mark or on a row, or press Enter on a row."}));
    return;
  }
  $("#chosen").textContent = title(i);
  document.body.classList.add("one");
  const parts = [];
  if (at("status", i) === "diverged") parts.push(make("p", {className: "bad", textContent:
    "This training diverged: its parameters or outputs were not finite. So it has no scores. Reports count it with the worst scores."}));
  if (fails[i]) parts.push(make("p", {className: "said", textContent: "The filters leave this run out."}));
  const code = make("code", {textContent: command(i), tabIndex: 0});
  const copied = make("span", {role: "status"}), button = make("button", {type: "button", textContent: "Copy the command"});
  code.id = "command";
  button.id = "copy";
  button.addEventListener("click", () => copy(code, copied));
  parts.push(make("h3", {textContent: "Train it again"}), code, make("p", {}, button, " ", copied));
  const there = [...numbers.values()].filter(each => !Number.isNaN(each.y[i]));
  const scores = there.filter(each => each.better || each.about || !each.setting);
  const settings = [...fields.values()].map(each => [known(each), value(each.name, at(each.name, i)), each.varies]);
  if (FACETS.length) parts.push(make("h3", {textContent: "Settings that vary"}), list(settings.filter(([,, varies]) => varies)));
  if (scores.length) parts.push(make("h3", {textContent: "Scores"}), list(scores.map(each => {
    const name = make("td", {}, each.axis);
    if (each.about) name.append(make("small", {textContent: each.about}));
    return [name, shown(each.y[i])];
  })));
  parts.push(...curves(i), ...pictures(i));
  parts.push(make("h3", {textContent: "Other settings"}), list([["id", texts.id[i]],
    ...settings.filter(([,, varies]) => !varies), ["configuration", texts.config[i]]]));
  parts.push(make("h3", {textContent: "How it was made and scored"}), list([
    ...there.filter(each => !scores.includes(each)).map(each => [each.words, shown(each.y[i])]),
    ...Object.entries(origin).map(([name, told]) => [name.replaceAll("_", " "), shown(told[i])])]));
  const home = make("button", {type: "button", textContent: "Back to the table"});
  home.addEventListener("click", back);
  parts.push(make("p", {}, home));
  about.replaceChildren(...parts);
  for (const element of $$("[data-chart]", about)) lay(element, i);
}

function list(lines) {
  const cell = text => text instanceof Node ? text : make("td", {textContent: text});
  return make("table", {}, make("tbody", {}, ...lines.map(([name, v]) => make("tr", {}, cell(name), cell(v)))));
}

function curves(i) {
  const told = DATA.curves;
  if (!told) return [];
  const found = told.series.map((each, k) => [each, k]).filter(([each]) => each.y[i]);
  if (!found.length) return [];
  return [make("h3", {textContent: "While it trained"}), ...found.map(([each, k]) => {
    const chart = make("div", {className: "chart"});
    chart.dataset.chart = "curve"; chart.dataset.k = k;
    const y = each.y[i], ends = `from ${shown(y[0])} to ${shown(y[y.length - 1])}`;
    return make("figure", {}, make("figcaption", {textContent: `${each.words}: ${ends}`}), chart);
  })];
}

let steps = null;
async function lay(element, i) {
  // Draws a chart of the chosen run, unless another run was chosen meanwhile.
  if (element.dataset.chart === "curve") {
    steps ||= column(DATA.curves.at);
    const {words, y} = DATA.curves.series[element.dataset.k];
    const points = steps[i].map((u, k) => ({u, v: typeof y[i][k] === "string" ? null : y[i][k]}));
    const spec = layers(CHARTS.curve, encoding => {
      encoding.x.title = DATA.curves.x; encoding.x.scale = {nice: false, zero: false};
      encoding.y.title = null; encoding.y.scale = {zero: false};
      encoding.color = {value: DATA.methods[at("method", i)].colour};
      encoding.x.axis = {tickCount: 5, format: "~s"}; encoding.y.axis = {tickCount: 4, format: "~g"};
    });
    if (points.length > 20) spec.mark = {...spec.mark, point: false};
    return draw(element, {...spec, datasets: {curve: points}});
  }
  const {reach} = DATA.points, method = DATA.methods[at("method", i)];
  const spec = layers(CHARTS.plane, encoding => {
    for (const side of ["x", "y"]) Object.assign(encoding[side], {title: null, scale: {domain: [-reach, reach], nice: false}, axis: {tickCount: 4}});
  });
  spec.layer[1].encoding.color = {value: method.colour};
  return draw(element, {...spec, datasets: {x: plane("x", i), made: plane(element.dataset.kind, i)}});
}

const KINDS = {samples: "samples from the prior", x_rec: "reconstructions of test data"};
function kept(pack, kind, i) {
  const k = pack.rows.indexOf(i);
  return k < 0 ? null : column(pack[kind], pack.rows.length)[k];
}

function plane(kind, i) {
  const bytes = atob(kept(DATA.points, kind, i) || ""), found = [], {reach} = DATA.points;
  for (let k = 0; k + 1 < bytes.length; k += 2) {
    const [a, b] = [bytes.charCodeAt(k), bytes.charCodeAt(k + 1)];
    if (a !== 255 && b !== 255) found.push({u: (a / 254 * 2 - 1) * reach, v: (b / 254 * 2 - 1) * reach});
  }
  return found;
}

function pictures(i) {
  if (DATA.images && DATA.images.rows.includes(i)) {
    const kinds = {...KINDS, x: "test images"};
    const found = Object.entries(kinds).filter(([kind]) => kept(DATA.images, kind, i));
    return [make("h3", {textContent: "Images"}), ...found.map(([kind, words]) => make("figure", {className: "images"},
      make("figcaption", {textContent: words}), make("img", {alt: `${words} of ${title(i)}`, src: `data:image/${DATA.images.type};base64,` + kept(DATA.images, kind, i)})))];
  }
  if (DATA.points && DATA.points.rows.includes(i)) {
    return [make("h3", {textContent: "Points"}), make("p", {className: "said", textContent: "Grey: test data. In colour: what the model makes."}),
      make("div", {className: "two"}, ...Object.entries(KINDS).map(([kind, words]) => {
        const chart = make("div", {className: "chart"}), n = kept(DATA.points, kind, i).length && atob(kept(DATA.points, kind, i)).length / 2;
        chart.dataset.chart = "plane"; chart.dataset.kind = kind;
        const outside = n - plane(kind, i).length;
        return make("figure", {}, make("figcaption", {textContent: words + (outside ? `; ${outside} of ${n} lie outside` : "")}), chart);
      }))];
  }
  return DATA.points || DATA.images ? [make("p", {className: "said", textContent: "No samples of this run are in this page."})] : [];
}

async function copy(code, told) {
  const text = code.textContent;
  let done = false;
  try { await navigator.clipboard.writeText(text); done = true; } catch {
    getSelection().selectAllChildren(code);
    try { done = document.execCommand("copy"); } catch { done = false; }
  }
  told.textContent = done ? "copied" : "The command is selected: copy it with Ctrl+C.";
}

// Together

let asked = false;
function changed() {
  // Once a frame, however many events there are.
  remember();
  if (asked) return;
  asked = true;
  requestAnimationFrame(() => { asked = false; update(); });
}

function update() {
  const before = selected.length;
  select();
  const share = N ? ` (${(100 * selected.length / N).toFixed(1)} %)` : "";
  $("#count").textContent = `${many(selected.length)} of ${many(N)} runs selected${share}${state.own ? `, without ${many(OTHERS)} of other settings` : ""}`;
  fillForm();
  table();
  for (const [name, each] of views) if (name !== "scatter") each.update();
  // Thousands of marks take longer than a frame: histograms and numbers don't wait for them.
  $("#scatter").setAttribute("aria-busy", "true");
  clearTimeout(update.timer);
  const wait = dragged ? update.took * 2 - (performance.now() - update.ended) : 0;
  if (wait > 0) update.timer = setTimeout(marks, wait); else marks();
}
Object.assign(update, {took: 0, ended: 0, latest: null});

async function marks() {
  const chart = views.get("scatter"), begun = performance.now();
  const mine = update.latest = {};
  await chart?.update();
  update.ended = performance.now();
  update.took = update.ended - begun;
  if (mine === update.latest) $("#scatter").removeAttribute("aria-busy");
}

function start() {
  for (const role of ROLES) {
    $("#ranges").append(rangeForm(role));
    const figure = make("figure", {role: "group"}, make("figcaption"), make("div", {className: "chart"}), make("p", {className: "said"}));
    figure.dataset.role = role;
    $("#histograms").append(figure);
  }
  for (const facet of FACETS) $("#facets").append(facetForm(facet));
  $("#filters").addEventListener("submit", event => event.preventDefault());
  $("#form").open = !matchMedia("(max-width: 800px)").matches;
  $("#fit").hidden = !ROLES.length;
  $("#fit input").addEventListener("change", event => { state.fit = event.target.checked; changed(); });
  $("#own").hidden = !OWN;
  $("#own span").textContent = `Only the study's own settings: ${many(N - OTHERS)} runs; ${many(OTHERS)} have others`;
  $("#own input").addEventListener("change", event => { state.own = event.target.checked; changed(); });
  $("#find").addEventListener("submit", event => {
    event.preventDefault();
    const digits = $("#find input").value.trim().toLowerCase(), found = beginning(digits);
    strange = digits.length < SHORTEST ? `Give the first ${SHORTEST} or more digits of an id.`
      : found.length === 1 ? "" : `${found.length || "No"} ${found.length > 1 ? "ids begin" : "id begins"} with ${digits.slice(0, 60)}.`;
    if (found.length === 1) { choose(found[0], {show: true}); changed(); $("#detail").focus(); } else tell();
  });
  $("#reset").addEventListener("click", () => {
    strange = "";
    state = {...fresh(), run: state.run, sort: state.sort, roles: state.roles};
    changed();
  });
  for (const link of $$("[data-skip]")) link.addEventListener("click", event => {
    // The address after # is the state, so these links move the focus themselves.
    event.preventDefault();
    const target = $(link.getAttribute("href"));
    if (target.id === "filters") $("#form").open = true;
    target.focus(); target.scrollIntoView();
  });
  addEventListener("hashchange", () => { if (location.hash.slice(1) !== written) restore(); });
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => { build(); detail(); });
  pointer();
  tableEvents();
}

function restore() {
  state = fromHash(location.hash.slice(1));
  select(); detail();
  return build();
}

try { start(); await restore(); } catch (error) { fail(error); throw error; }
})();
