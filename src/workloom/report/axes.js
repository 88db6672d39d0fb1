// Words for numbers, names cut to fit, and the axes of charts.
"use strict";

const FONT = "12px system-ui, sans-serif";
const STEPS_S = [1, 2, 5, 10, 20, 30, 60, 120, 300, 600, 1200, 1800, 3600, 7200, 10800, 21600, 43200, 86400];
const POWERS = d3.range(-12, 16).map((e) => Number(`1e${e}`));
const POWERS_S = [...POWERS.filter((p) => p <= 10), 60, 600, 3600, 21600, ...POWERS.slice(12).map((p) => 86400 * p)];
const DURATIONS = [[1e-3, 1e-6, "µs"], [1, 1e-3, "ms"], [60, 1, "s"], [3600, 60, "min"], [172800, 3600, "h"]];
const SHORT = [[1e12, "T"], [1e9, "G"], [1e6, "M"], [1e3, "k"]];

// ---- words

const digits = (value, n) => value.toLocaleString("en", { maximumSignificantDigits: n });
const isNumber = (value) => typeof value === "number";

function text(value, unit, n = 3) {
  if (!isNumber(value)) return value ?? "–";
  const size = Math.abs(value);
  if (unit === "s" && size) {
    const [, one, name] = DURATIONS.find(([below]) => size < below * 0.9995) ?? [0, 86400, "d"];
    return `${digits(value / one, n)} ${name}`;
  }
  if (unit === "s") return "0 s";
  if (unit === "share") return `${digits(100 * value, n)}%`;
  if (size && size < 1e-4) return value.toExponential(1).replace(".0e", "e");
  const [one, name] = SHORT.find(([least]) => size >= least * 0.9995) ?? [1, ""];
  return digits(value / one, n) + name;
}

const pen = document.createElement("canvas").getContext("2d");
const widthOf = (said) => ((pen.font = FONT), pen.measureText(said).width);
const widest = (texts) => Math.ceil(d3.max(texts, widthOf) ?? 0);

// A name in so many pixels. Its beginning and its end tell it from others, so the middle goes.
function clip(name, room) {
  let cut = name;
  for (let keep = name.length - 1; keep > 3 && widthOf(cut) > room; keep--)
    cut = `${name.slice(0, Math.ceil(keep / 2))}…${name.slice(name.length - Math.floor(keep / 2))}`;
  return cut;
}

// A name on at most two lines, broken where it has a space or sign if that fills half a line.
function fold(name, room) {
  if (widthOf(name) <= room) return name;
  let end = name.length;
  while (end > 1 && widthOf(name.slice(0, end)) > room) end--;
  const sign = name.slice(0, end).search(/[^\p{L}\p{N}][\p{L}\p{N}]*$/u) + 1;
  if (sign > end / 2) end = sign;
  return `${name.slice(0, end).trimEnd()}\n${clip(name.slice(end).trimStart(), room)}`;
}

// What is measured, with its unit where the numbers do not carry it.
function named({ label, unit }) {
  return ["", "s", "share"].includes(unit) || label.includes(unit) ? label : `${label} (${unit})`;
}
const heading = (axis) => named(axis) + (axis.log ? ", log scale" : "");

// ---- axes: { type, domain, ticks, texts, label }

// As few digits as keep the ticks apart; durations in even steps all in one unit.
function tickTexts(ticks, unit, by) {
  if (unit === "s" && by) {
    const most = Math.max(...ticks.map(Math.abs)), whole = ([, one]) => one <= 1 || Number.isInteger(by / one);
    const units = [...DURATIONS, [Infinity, 86400, "d"]], last = units.findIndex(([below]) => most < below);
    const [, one, name] = units.slice(0, last + 1).findLast(whole);
    return ticks.map((tick) => (tick ? `${digits(tick / one, 6)} ${name}` : "0"));
  }
  const told = [3, 4, 5, 6, 8, 12].map((n) => ticks.map((tick) => text(tick, unit, n)));
  return told.find((each) => new Set(each).size === ticks.length) ?? told[0];
}

const thinned = (ticks, most) => ticks.filter((_, i) => i % Math.ceil(ticks.length / Math.max(1, most)) === 0);

function logTicks([low, high], unit, most) {
  const within = (ticks) => ticks.filter((tick) => tick >= low * (1 - 1e-9) && tick <= high * (1 + 1e-9));
  const powers = within(unit === "s" ? POWERS_S : POWERS);
  if (powers.length > 2) return thinned(powers, most);
  const finer = within(POWERS.flatMap((p) => [p, 2 * p, 5 * p]));
  const ticks = unit === "s" && high > 60 ? within(STEPS_S) : finer;
  return ticks.length > 1 ? thinned(ticks, most) : d3.ticks(low, high, 3);
}

function step(span, unit, most) {
  if (unit !== "s" || span / most <= 1) return d3.tickStep(0, span, most);
  return STEPS_S.find((each) => each >= span / most) ?? 86400 * d3.tickStep(0, span / 86400, most);
}

// An axis of numbers. `most`: ticks there is room for; `whole`: it ends on ticks.
function amounts(axis, values, most, whole) {
  const shown = values.filter((value) => isNumber(value) && (!axis.log || value > 0));
  let [low, high] = shown.length ? d3.extent(shown) : [1, 1], by = 0, domain, ticks;
  if (axis.log) {
    domain = low === high ? [low / 2, high * 2] : whole ? [low / 1.15, high * 1.15] : [low, high];
    ticks = logTicks(domain, axis.unit, most);
  } else {
    if (axis.zero) [low, high] = [Math.min(0, low), Math.max(0, high)];
    if (low === high) [low, high] = low ? [low - Math.abs(low) / 2, low + Math.abs(low) / 2] : [0, 1];
    by = step(high - low, axis.unit, most);
    const first = Math.floor(low / by + 1e-9), last = Math.ceil(high / by - 1e-9);
    domain = whole ? [first * by, last * by] : [low, high];
    ticks = d3.range(whole ? first : Math.ceil(low / by - 1e-9), whole ? last + 1 : Math.floor(high / by + 1e-9) + 1);
    ticks = ticks.map((k) => Number((k * by).toPrecision(12)));
  }
  const type = axis.log ? "log" : "linear";
  return { type, domain, ticks, texts: tickTexts(ticks, axis.unit, by), label: heading(axis), grid: true };
}

// An axis of names (or numbers one beside the other): the k-th lies from k to k + 1.
function places(axis, names, told) {
  const ticks = names.map((_, k) => k + 0.5);
  return { type: "linear", domain: [0, names.length], ticks, texts: names.map(told), label: heading(axis) };
}
const downwards = (axis) => ({ ...axis, domain: [...axis.domain].reverse() });

function thinnedPlaces(axis, width) {
  const keep = thinned(d3.range(axis.ticks.length), width / (widest(axis.texts) + 12));
  return { ...axis, ticks: keep.map((k) => axis.ticks[k]), texts: keep.map((k) => axis.texts[k]) };
}
