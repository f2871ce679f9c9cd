// Draws the charts that stand in the page as data, and keeps the overview's live part fresh. The page works without it: every chart has a table.
"use strict";

const charts = new Map(); // canvas id of the figure -> Chart
const still = matchMedia("(prefers-reduced-motion: reduce)");

function colour(name) {
  return getComputedStyle(document.documentElement).getPropertyValue(name).trim();
}

function tell(value, unit) {
  if (value === null || value === undefined) return "\u2014";
  if (unit === "share") return (value * 100).toFixed(Math.abs(value) < 0.1 && value !== 0 ? 1 : 0) + " %";
  if (unit === "seconds") return value < 0.0005 ? "0" : value < 1 ? Math.round(value * 1000) + " ms" : value.toFixed(value < 10 ? 1 : 0) + " s";
  if (unit.startsWith("money:")) return Number(value.toPrecision(3)).toString() + " " + unit.slice(6);
  return value.toLocaleString("en", { maximumFractionDigits: 2 });
}

// A value between two gaps, or one of few, would hardly be seen as a piece of a line.
function isLonely(values, i) {
  if (values[i] === null) return false;
  const isIsland = (values[i - 1] ?? null) === null && (values[i + 1] ?? null) === null;
  return isIsland || values.filter((value) => value !== null).length <= 12;
}

function datasets(spec) {
  const tone = (line) => colour("--draw-" + line.tone);
  if (spec.kind === "range") {
    const [lower, value, upper] = spec.lines;
    return [
      { type: "bar", label: "95 % interval", data: value.values.map((_, i) => [lower.values[i], upper.values[i]]), backgroundColor: tone(lower), barThickness: 10, borderRadius: 5, borderSkipped: false },
      { type: "line", label: "value", data: value.values, borderColor: "transparent", backgroundColor: tone(value), pointRadius: 6, pointHoverRadius: 7, order: -1 },
    ];
  }
  const isLine = spec.kind === "line";
  return spec.lines.map((line) => ({
    type: isLine ? "line" : "bar",
    label: line.name,
    data: line.values,
    borderColor: tone(line),
    backgroundColor: tone(line),
    borderWidth: isLine ? 2 : 0,
    borderRadius: isLine ? 0 : 2,
    pointRadius: isLine ? line.values.map((value, i) => (isLonely(line.values, i) ? 2.5 : 0)) : 0,
    pointHoverRadius: 4,
    tension: 0.25,
    maxBarThickness: 28,
    categoryPercentage: spec.kind === "bars" ? 0.7 : 0.9,
    barPercentage: 0.95,
  }));
}

function options(spec) {
  const stacked = spec.kind === "stack";
  const grid = { color: colour("--line"), drawTicks: false };
  const ticks = { color: colour("--calm"), padding: 6, font: { size: 11 } };
  return {
    animation: still.matches ? false : { duration: 250 },
    maintainAspectRatio: false,
    interaction: { mode: "index", intersect: false },
    plugins: {
      legend: { display: false },
      tooltip: {
        callbacks: {
          label: (item) => {
            const raw = item.raw;
            const words = Array.isArray(raw) ? tell(raw[0], spec.unit) + " \u2013 " + tell(raw[1], spec.unit) : tell(raw, spec.unit);
            return " " + item.dataset.label + ": " + words;
          },
        },
      },
    },
    scales: {
      x: { stacked, border: { color: colour("--line") }, grid: { display: false }, ticks: { ...ticks, maxRotation: spec.kind === "bars" ? 50 : 0, autoSkipPadding: 18 } },
      y: { stacked, beginAtZero: true, border: { display: false }, grid, ticks: { ...ticks, maxTicksLimit: 6, callback: (value) => tell(value, spec.unit) } },
    },
  };
}

function draw(root) {
  if (typeof Chart === "undefined") return;
  for (const canvas of root.querySelectorAll("canvas[data-chart]")) {
    const figure = canvas.closest("figure");
    charts.get(figure.id)?.destroy();
    const spec = JSON.parse(canvas.dataset.chart);
    charts.set(figure.id, new Chart(canvas, { data: { labels: spec.labels, datasets: datasets(spec) }, options: options(spec) }));
  }
}

// Puts a fresh live part in the place of the old one. A chart whose figure is still there keeps its canvas and only gets new data, so that nothing
// flickers and a tooltip, an open table and the focus stay.
function renew(html) {
  const live = document.getElementById("live");
  const fresh = document.createElement("template");
  fresh.innerHTML = html;
  const open = new Set([...live.querySelectorAll("details[open]")].map((one) => one.closest("figure")?.id));
  const focus = document.activeElement?.closest("#live a, #live .scroll, #live summary");
  const place = focus && (focus.getAttribute("href") || focus.getAttribute("aria-label") || focus.closest("figure")?.id);
  for (const canvas of fresh.content.querySelectorAll("canvas[data-chart]")) {
    const id = canvas.closest("figure").id;
    const chart = charts.get(id);
    if (!chart || !chart.canvas.isConnected) continue;
    const spec = JSON.parse(canvas.dataset.chart);
    chart.data.labels = spec.labels;
    const next = datasets(spec);
    if (next.length === chart.data.datasets.length) next.forEach((set, i) => Object.assign(chart.data.datasets[i], set));
    else chart.data.datasets = next;
    chart.canvas.setAttribute("aria-label", canvas.getAttribute("aria-label"));
    chart.canvas.dataset.chart = canvas.dataset.chart;
    canvas.parentElement.replaceWith(chart.canvas.parentElement);
  }
  for (const id of open) fresh.content.querySelector("#" + CSS.escape(id) + " details")?.setAttribute("open", "");
  const scrolled = [...live.querySelectorAll(".scroll")].map((one) => [one.getAttribute("aria-label"), one.scrollLeft, one.scrollTop]);
  live.replaceChildren(fresh.content);
  for (const [label, left, top] of scrolled) {
    const one = [...live.querySelectorAll(".scroll")].find((two) => two.getAttribute("aria-label") === label);
    if (one) [one.scrollLeft, one.scrollTop] = [left, top];
  }
  if (place) [...live.querySelectorAll("a, .scroll, summary")].find((one) => (one.getAttribute("href") || one.getAttribute("aria-label") || one.closest("figure")?.id) === place)?.focus({ preventScroll: true });
  for (const [id, chart] of charts) {
    if (!chart.canvas.isConnected) { chart.destroy(); charts.delete(id); } else { chart.resize(); chart.update(); }
  }
  draw({ querySelectorAll: (selector) => [...live.querySelectorAll(selector)].filter((canvas) => !charts.has(canvas.closest("figure").id)) });
}

function follow(state) {
  const words = state.querySelector(".text");
  const say = (tone, text) => { state.className = "live " + tone; words.textContent = text; };
  const stream = new EventSource(state.dataset.live);
  if (state.classList.contains("still")) say("still", "connecting");
  stream.addEventListener("overview", (event) => {
    renew(event.data);
    if (document.querySelector("#live [data-partial]")) say("away", "not all is available, trying again");
    else say("", "live");
  });
  stream.addEventListener("over", () => { stream.close(); location.reload(); });
  stream.addEventListener("error", () => {
    say("away", "not connected, trying again");
    // After an answer that is no stream (503, signed out) browsers give up for good, and do not say what the answer was.
    if (stream.readyState === EventSource.CLOSED) followAgain(state);
  });
}

// A restart of the console ends all sessions: loading the page leads to signing in, and back.
async function followAgain(state) {
  const asking = new AbortController();
  const asked = fetch(state.dataset.live, { headers: { accept: "text/event-stream" }, signal: asking.signal });
  const isSignedOut = await asked.then((answer) => answer.status === 401, () => false);
  asking.abort(); // the answer may be a stream
  if (isSignedOut) location.reload();
  else setTimeout(() => follow(state), 10000);
}

draw(document);
const state = document.getElementById("live-state");
if (state) follow(state);
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => draw(document));
