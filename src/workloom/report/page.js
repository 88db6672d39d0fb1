// Draws the figures of the page from the numbers embedded in it, and does what its buttons say.
"use strict";

function element(name, attributes, ...children) {
  const made = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  made.append(...children);
  return made;
}

// Names and what they look like: of series, or of the shades of a heat map.
function legend(figure, rows) {
  const swatch = (width) => d3.create("svg").attr("width", width).attr("height", 12).attr("aria-hidden", "true");
  const box = (svg, place) => svg.append("rect").attr("width", 12).attr("height", 12).attr("fill", colour(place));
  if (figure.kind === "heat") {
    const shade = shades(figure, rows), svg = swatch(68);
    d3.range(5).forEach((i) => box(svg, 0).attr("x", 14 * i).attr("fill-opacity", 0.06 + 0.235 * i));
    const [low, high] = shade.domain().map((value) => text(value, figure.value.unit));
    return [element("span", {}, `${heading(figure.value)}: ${low}`, svg.node(), high)];
  }
  if (figure.series.length < 2 && figure.kind !== "band") return [];
  return figure.series.map(({ name }, place) => {
    const boxed = ["bar", "stack"].includes(figure.kind), dots = figure.kind === "dots";
    const svg = swatch(boxed || dots ? 12 : 30);
    const none = !rows.some((row) => row.place === place && row.y !== null);
    const path = dots ? d3.symbol(symbol(place), 50)() : "M-15,0H15";
    if (boxed) box(svg, place);
    else svg.append("path").attr("d", path).attr("transform", `translate(${dots ? 6 : 15},6)`).attr("fill", "none")
      .attr("stroke", colour(place)).attr("stroke-width", 2).attr("stroke-dasharray", dots ? "none" : dash(place));
    return element("span", none ? { class: "none" } : {}, svg.node(), none ? `${name} (no numbers)` : name);
  });
}

// Takes away labels that would lie on another.
function thin(labels) {
  const kept = [];
  for (const label of labels) {
    const { left, right, top, bottom } = label.getBoundingClientRect();
    if (kept.some((k) => left < k.right && right > k.left && top < k.bottom && bottom > k.top)) label.remove();
    else kept.push({ left, right, top, bottom });
  }
}

const figures = JSON.parse(document.getElementById("figures").textContent);

function render(frame) {
  const figure = figures[frame.dataset.figure], rows = points(figure), width = Math.floor(frame.clientWidth);
  if (!width || Number(frame.dataset.width) === width) return;
  frame.dataset.width = width;
  if (!rows.some((row) => row.y !== null)) return frame.replaceChildren("There are no numbers to draw.");
  try {
    frame.replaceChildren(KINDS[figure.kind](figure, rows, width));
    thin(frame.querySelectorAll(".label text"));
    frame.previousElementSibling.replaceChildren(...legend(figure, rows));
  } catch (error) {
    frame.replaceChildren("This chart could not be drawn. Its numbers are below.");
    console.error(figure.key, error);
  }
}

// Every row with its unrounded numbers. A name that a spreadsheet would take for a formula is quoted.
function csv(table) {
  const value = (cell) => cell.querySelector("data")?.value ?? cell.dataset.plain ?? cell.textContent;
  const safe = (said) => (/^[=+\-@\t\r]/.test(said) && !Number.isFinite(Number(said)) ? `'${said}` : said);
  const quoted = (said) => (/[",\n\r]/.test(said) ? `"${said.replaceAll('"', '""')}"` : said);
  const line = (row) => [...row.cells].map((cell) => quoted(safe(value(cell)))).join(",") + "\n";
  return [...table.rows].map(line).join("");
}

async function give(button) {
  const table = button.closest(".table").querySelector("table"), said = csv(table);
  if (button.dataset.csv === "copy") {
    await navigator.clipboard.writeText(said);
    button.textContent = "Copied";
    setTimeout(() => (button.textContent = "Copy CSV"), 1500);
    return;
  }
  const href = URL.createObjectURL(new Blob([said], { type: "text/csv" }));
  element("a", { href, download: `${table.caption.textContent.replace(/[^\w]+/g, "-")}.csv` }).click();
  setTimeout(() => URL.revokeObjectURL(href), 10_000);
}

const root = document.documentElement, toggle = document.getElementById("theme");
const asked = new URLSearchParams(location.search).get("theme");
if (["light", "dark"].includes(asked)) root.dataset.theme = asked;
toggle.addEventListener("click", () => {
  const dark = root.dataset.theme ? root.dataset.theme === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
  root.dataset.theme = dark ? "light" : "dark";
});
root.classList.add("scripted");
document.addEventListener("click", (event) => event.target.dataset.csv && give(event.target));
const frames = document.querySelectorAll(".chart");
const observer = new ResizeObserver(() => requestAnimationFrame(() => frames.forEach(render)));
frames.forEach((frame) => (render(frame), observer.observe(frame)));
