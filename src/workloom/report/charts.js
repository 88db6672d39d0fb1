// The kinds of chart; report/figure.py says what the fields of a figure mean. Colours are CSS variables, so a change of
// theme redraws nothing.
"use strict";

const DASHES = ["none", "7 3", "2 3", "9 3 2 3", "4 2", "1 2", "12 4", "6 2 1 2 1 2"];
const SYMBOLS = ["Circle", "Square2", "Triangle", "Diamond2", "Times", "Plus", "Star", "Asterisk"];
const colour = (place) => `var(--s${1 + (place % 8)})`;
const symbol = (place) => d3[`symbol${SYMBOLS[place % 8]}`];
const dash = (place) => DASHES[place % 8];

// The numbers of a figure, a row a point.
function points(figure) {
  const fields = ["y", "low", "high", "x_low", "x_high", "labels", "pale"];
  return figure.series.flatMap((series, place) => series.x.map((x, i) => {
    const [y, low, high, xLow, xHigh, label, pale] = fields.map((field) => series[field]?.[i] ?? null);
    return { place, name: series.name, x, y, low, high, xLow, xHigh, label, clear: pale ? 0.35 : 1 };
  }));
}

function tip(figure, rows, pointer, channels, width) {
  const { x, y, value } = figure;
  const line = (axis, at, low, high) => {
    const range = isNumber(low) && isNumber(high) ? ` (${text(low, axis.unit)} to ${text(high, axis.unit)})` : "";
    return `${named(axis)}: ${text(at, axis.unit, 4)}${range}`;
  };
  const title = (row) => [
    value ? `${y.label}: ${row.name}` : row.label ? `${row.label}, ${row.name}` : row.name,
    line(x, row.x, row.xLow, row.xHigh),
    line(value ?? y, row.y, row.low, row.high),
  ].join("\n");
  const lineWidth = Math.min(30, width / 28); // in em: less than half of the chart
  const box = { fontSize: 12, lineHeight: 1.25, lineWidth, preferredAnchor: "left" };
  return Plot.tip(rows, pointer({ ...channels, ...box, title, maxRadius: 60 }));
}

// ---- the kinds: figure, rows, width in pixels -> an SVG

function curves(figure, rows, width) {
  const { kind, x: across, y: up } = figure;
  if (kind === "cdf" && across.log) {
    // What is 0 or less is at most anything on the axis: it counts from the left edge on.
    const edge = d3.min(rows, (row) => (row.x > 0 ? row.x : undefined)) ?? 1;
    rows = rows.map((row) => ({ ...row, x: row.x > 0 ? row.x : edge }));
  }
  const seen = (row) => row && row.y !== null && !(across.log && row.x <= 0) && !(up.log && row.y <= 0);
  const shown = rows.filter(seen);
  const y = amounts(up, shown.flatMap((row) => [row.y, row.low, row.high]), 5, true);
  if (kind === "cdf" && up.unit === "share" && !up.log) {
    y.domain = [0, 1];
    y.ticks = [0, 0.25, 0.5, 0.75, 0.9, 1];
    y.texts = y.ticks.map((share) => text(share, "share"));
  }
  const left = widest(y.texts) + 14, most = (width - left) / 64;
  const x = amounts(across, shown.flatMap((row) => [row.x, row.xLow, row.xHigh]), most, kind === "dots");
  const marks = figure.series.flatMap((_, place) => {
    const all = rows.filter((row) => row.place === place), mine = all.filter(seen), stroke = colour(place);
    const joined = all.map((row) => (seen(row) ? row : { ...row, y: NaN, low: NaN, high: NaN }));
    const alone = all.filter((row, i) => seen(row) && !seen(all[i - 1]) && !seen(all[i + 1]));
    const dotted = kind === "dots" || (kind === "line" && mine.length <= 24) ? mine : alone;
    const line = { x: "x", y: "y", curve: kind === "step" ? "step-after" : "linear", strokeDasharray: dash(place) };
    const clear = { stroke, strokeOpacity: "clear" };
    const dot = { x: "x", y: "y", r: 3.5, symbol: symbol(place), ...clear, strokeWidth: 1.75, fill: "var(--card)" };
    const upright = mine.filter((row) => isNumber(row.low)), level = mine.filter((row) => isNumber(row.xLow));
    return [
      kind === "band" && Plot.areaY(joined, { x: "x", y1: "low", y2: "high", fill: stroke, fillOpacity: 0.18 }),
      kind === "dots" && Plot.ruleX(upright, { x: "x", y1: "low", y2: "high", ...clear }),
      kind === "dots" && Plot.ruleY(level, { y: "y", x1: "xLow", x2: "xHigh", ...clear }),
      figure.front.length > 0 && Plot.line(mine, { x: "x", y: "y", stroke, strokeOpacity: 0.25 }),
      kind !== "dots" && Plot.lineY(joined, { ...line, stroke, strokeWidth: 2 }),
      Plot.dot(dotted, dot),
    ];
  });
  const middle = across.log ? Math.sqrt(x.domain[0] * x.domain[1]) : d3.mean(x.domain);
  const beside = (side, textAnchor) => {
    const named = shown.filter((row) => row.label && row.x <= middle === side > 0);
    return Plot.text(named, { x: "x", y: "y", text: "label", dx: 7 * side, dy: -9, textAnchor, className: "label" });
  };
  const right = Math.max(14, widest(x.texts.slice(-1)) / 2);
  marks.unshift(Plot.line(figure.front, { stroke: "var(--faint)", strokeWidth: 1.5, strokeOpacity: 0.8 }));
  marks.push(beside(1, "start"), beside(-1, "end"), tip(figure, shown, Plot.pointer, { x: "x", y: "y" }, width));
  return draw(width, figure.front.length ? 380 : 270, { x, y, left, right }, marks);
}

function bars(figure, rows, width) {
  const { y: measured, x: category } = figure, stacked = figure.kind === "stack";
  const many = stacked ? 1 : figure.series.length, names = [...new Set(rows.map((row) => row.x))];
  const lying = names.some((name) => !isNumber(name)), seen = (row) => row.y !== null && !(measured.log && row.y <= 0);
  const base = measured.log ? d3.min(rows, (row) => (row.y > 0 ? row.y : undefined)) / 2 : 0, tops = new Map();
  const placed = rows.map((row) => {
    const from = stacked ? tops.get(row.x) ?? 0 : base, to = seen(row) ? row.y + (stacked ? from : 0) : from;
    tops.set(row.x, to);
    const thick = 0.76 / many, side = names.indexOf(row.x) + 0.12 + (stacked ? 0 : row.place) * thick;
    return { ...row, from, to, side, other: side + thick, mid: side + thick / 2 };
  });
  const shown = placed.filter(seen);
  const told = (name) => text(name, category.unit), said = (row) => text(row.y, measured.unit);
  const room = lying ? Math.min(widest(names.map(told)), width * 0.34) : 0;
  const values = shown.flatMap((row) => [row.from, row.to, row.low, row.high]);
  const value = amounts(measured, values, lying ? (width - room) / 64 : 5, true);
  const left = (lying ? room : widest(value.texts)) + 14, right = lying ? 46 : 14;
  const pixels = (width - left - right) / (value.domain[1] - value.domain[0]);
  const fits = (row) => (row.to - row.from) * pixels > widthOf(said(row)) + 8;
  const ended = lying && !stacked && shown.length <= 60 ? placed.filter((row) => row.high === null) : [];
  const [along, beside] = lying ? ["x", "y"] : ["y", "x"]; // the channels of the amount and of the place
  const edges = { [`${along}1`]: "from", [`${along}2`]: "to", [`${beside}1`]: "side", [`${beside}2`]: "other" };
  const error = { [`${along}1`]: "low", [`${along}2`]: "high", [beside]: "mid" };
  const pointer = stacked ? Plot.pointer : lying ? Plot.pointerY : Plot.pointerX;
  const sampled = (row) => d3.range(row.from, row.to, d3.max(values) / 50).map((to) => ({ ...row, to }));
  const marks = [
    Plot.rect(shown, { ...edges, inset: stacked || many > 1 ? 0.5 : 0, fill: (row) => colour(row.place) }),
    (lying ? Plot.ruleY : Plot.ruleX)(shown.filter((row) => isNumber(row.low)), error),
    Plot.text(lying && stacked ? shown.filter(fits) : [], {
      x: (row) => (row.from + row.to) / 2, y: "mid", text: said, fill: "var(--card)",
    }),
    Plot.text(ended, { x: "to", y: "mid", text: said, textAnchor: "start", dx: 4, fontSize: 11 }),
    tip(figure, stacked ? shown.flatMap(sampled) : shown, pointer, { [along]: "to", [beside]: "mid" }, width),
  ];
  if (!lying) {
    const x = thinnedPlaces(places(category, names, told), width - left);
    return draw(width, 270, { x, y: value, left, right }, marks);
  }
  const y = downwards(places(category, names, (name) => fold(told(name), room)));
  const tall = Math.max(many * 13 + 10, stacked ? 34 : 24, y.texts.some((each) => each.includes("\n")) ? 36 : 0);
  return draw(width, names.length * tall + 78, { x: value, y, left, right }, marks);
}

// How strong the colour of a heat map's values is: 0.06 for the least, 1 for the most.
function shades(figure, rows) {
  const { log, zero } = figure.value, [low, high] = d3.extent(rows, (row) => (log && row.y <= 0 ? null : row.y));
  const least = zero && !log ? Math.min(0, low) : low;
  return (log ? d3.scaleLog : d3.scaleLinear)([least, high > least ? high : least + 1], [0.06, 1]).clamp(true);
}

function heat(figure, rows, width) {
  const { value, series } = figure, shade = shades(figure, rows);
  const strength = (row) => (value.log && row.y <= 0 ? 0.06 : shade(row.y));
  const names = series.map((each) => each.name), room = Math.min(widest(names), width * 0.3), left = room + 14;
  const y = downwards(places(figure.y, names, (name) => fold(name, room)));
  const columns = [...new Set(rows.map((row) => row.x))], cell = (width - left - 14) / columns.length;
  let x = places(figure.x, columns, (name) => clip(text(name, figure.x.unit), 140));
  const turned = !columns.every(isNumber) && widest(x.texts) > cell - 6;
  if (columns.every(isNumber)) x = thinnedPlaces(x, width - left);
  const bottom = 44 + (turned ? Math.ceil(widest(x.texts) * 0.58) : 0);
  const at = (row) => columns.indexOf(row.x), shown = rows.filter((row) => row.y !== null);
  const said = (row) => text(row.y, value.unit), fits = widest(rows.map(said)) < cell - 4;
  const ink = (row) => (row.y !== null && strength(row) > 0.6 ? "var(--card)" : "var(--text)");
  const box = { x1: at, x2: (row) => at(row) + 1, y1: "place", y2: (row) => row.place + 1, inset: 0.5 };
  const middle = { x: (row) => at(row) + 0.5, y: (row) => row.place + 0.5 };
  return draw(width, names.length * 34 + 36 + bottom, { x: { ...x, turned }, y, left, right: 14, bottom }, [
    Plot.rect(shown, { ...box, fill: colour(0), fillOpacity: strength }),
    Plot.text(fits ? rows : [], { ...middle, text: said, fill: ink, fontSize: 11 }),
    tip(figure, shown, Plot.pointer, middle, width),
  ]);
}

function draw(width, height, { x, y, left, right, bottom = 44 }, marks) {
  const common = { labelArrow: "none", lineHeight: 1.15 }, below = { labelAnchor: "center", labelOffset: bottom - 8 };
  const told = (axis) => ({ ...common, text: (_, i) => axis.texts[i], label: axis.label, tickSize: axis.grid ? 4 : 0 });
  return Plot.plot({
    width, height, marginLeft: left, marginRight: right, marginTop: 28, marginBottom: bottom,
    style: { fontFamily: "inherit", fontSize: "12px", fontVariantNumeric: "tabular-nums", color: "var(--text)" },
    x: { type: x.type, domain: x.domain, axis: null },
    y: { type: y.type, domain: y.domain, axis: null },
    opacity: { type: "identity" },
    marks: [
      x.grid && Plot.gridX(x.ticks),
      y.grid && Plot.gridY(y.ticks),
      Plot.axisX(x.ticks, { ...told(x), ...below, tickRotate: x.turned ? -35 : 0 }),
      Plot.axisY(y.ticks, { ...told(y), labelAnchor: "top", labelOffset: left }),
      ...marks,
    ].filter(Boolean),
  });
}

const KINDS = { line: curves, step: curves, cdf: curves, band: curves, dots: curves, bar: bars, stack: bars, heat };
