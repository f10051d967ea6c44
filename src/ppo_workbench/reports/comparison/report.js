const at = (id) => document.getElementById(id);
const safe = (text) => String(text).replace(/&/g, "&amp;").replace(/</g, "&lt;").replace(/>/g, "&gt;");
let arm = 0, page = 0;
const PAGE = 50;

function place(id, figure) {
  const element = at(id);
  if (element && figure) draw(element, figure);
}

// Full hours of a day, or the first bar of every stretch of equal length.
function candleTicks(times) {
  const most = narrow ? 4 : 9, places = times.map((_, i) => i);
  const hours = details.candles.unit === "day" ? places.filter((i) => times[i].endsWith(":00")) : [];
  const found = hours.length > 2 ? hours : places, step = Math.ceil(found.length / most);
  return found.filter((_, i) => i % step === 0);
}

function candleFigure() {
  const chosen = details.candles.arms[arm][at("stretch").value];
  const bars = details.candles.stretches[chosen.label], count = bars.time.length;
  const x = bars.time.map((_, i) => i), actions = details.actions[arm];
  const data = [{ type: "candlestick", name: "price", x, open: bars.open, high: bars.high, low: bars.low,
    close: bars.close, text: bars.time.map(safe), increasing: { line: { color: "#2B7FC4", width: 1 } },
    decreasing: { line: { color: "#B57A00", width: 1 } }, showlegend: false }];
  const kinds = { "into long": ["triangle-up", "#0B8F69"], "into short": ["triangle-down", "#D55E00"],
    "out": ["x", "#B85C93"], "size changed": ["diamond-open", "#7A7A7A"] };
  const marks = {};
  for (const [i, shares, price, before, after] of chosen.fills) {
    const kind = after === 0 ? "out" : after !== before ? (after > 0 ? "into long" : "into short") : "size changed";
    (marks[kind] = marks[kind] || []).push([i, price, `${bars.time[i]}: ${shares > 0 ? "bought" : "sold"} ${Math.abs(shares)} at ${price}`]);
  }
  for (const [kind, points] of Object.entries(marks)) data.push({ type: "scatter", mode: "markers", name: kind,
    x: points.map((p) => p[0]), y: points.map((p) => p[1]), text: points.map((p) => safe(p[2])),
    hovertemplate: "%{text}<extra></extra>",
    marker: { symbol: kinds[kind][0], color: kinds[kind][1], size: 11, line: { width: 1, color: ink("--paper") } } });
  const runs = { x: [], y: [], text: [] };
  for (const [action, first, last, rules] of chosen.blocked) {
    for (const edge of [first - 0.45, last + 0.45, null]) {
      runs.x.push(edge);
      runs.y.push(edge === null ? null : safe(actions[action]));
      runs.text.push(safe(`${actions[action]} blocked: ${rules}`));
    }
  }
  if (chosen.blocked.length) data.push({ type: "scatter", mode: "lines", name: "blocked", ...runs, yaxis: "y2", connectgaps: false,
    line: { color: "#D55E00", width: 7 }, hovertemplate: "%{text}<extra></extra>", showlegend: false });
  if (chosen.broken.length) data.push({ type: "scatter", mode: "markers", name: "rejected or breaking a rule",
    x: chosen.broken, y: chosen.broken.map(() => "sent"), yaxis: "y2", hoverinfo: "x+name",
    marker: { symbol: "x-thin-open", color: "#C0392B", size: 9, line: { width: 2 } } });
  const ticks = candleTicks(bars.time);
  const rows = actions.map(safe).concat(chosen.broken.length ? ["sent"] : []);
  const short = (time) => details.candles.unit === "day" ? time.slice(11) : time.slice(5, 10);
  return { data, layout: { height: 480, margin: { l: 60, r: 12, t: 12, b: 45 }, hovermode: "closest",
    font: { family: "system-ui, sans-serif", size: 12 },
    legend: { orientation: "h", y: 1.02, yanchor: "bottom", x: 0 },
    xaxis: { range: [-1, count], tickvals: ticks, ticktext: ticks.map((i) => safe(short(bars.time[i]))), tickangle: 0, anchor: "y2",
      rangeslider: { visible: false }, zeroline: false, title: { text: safe(chosen.label) } },
    yaxis: { domain: [0.08 + 0.05 * rows.length, 1], title: { text: "price" }, automargin: true, zeroline: false },
    yaxis2: { domain: [0, 0.04 + 0.05 * rows.length], type: "category", categoryorder: "array", categoryarray: rows,
      range: [-0.6, rows.length - 0.4], automargin: true, fixedrange: true } } };
}

function orderedTrips() {
  const columns = details.trips[arm], rows = columns.exit.map((_, i) => i);
  const by = { exit: (i) => -i, won: (i) => -columns.profit_usd[i], lost: (i) => columns.profit_usd[i],
    held: (i) => -columns.bars[i] }[at("order").value];
  return rows.sort((a, b) => by(a) - by(b) || b - a);
}
function listTrips() {
  const columns = details.trips[arm], rows = orderedTrips(), pages = Math.max(1, Math.ceil(rows.length / PAGE));
  page = Math.min(Math.max(page, 0), pages - 1);
  const money = (value) => value.toLocaleString("en-US", { minimumFractionDigits: 2, maximumFractionDigits: 2, signDisplay: "exceptZero" });
  at("trips").replaceChildren();
  for (const i of rows.slice(page * PAGE, (page + 1) * PAGE)) {
    const row = at("trips").insertRow();
    const texts = [columns.entry[i], columns.exit[i], columns.direction[i] > 0 ? "long" : "short",
      columns.shares[i].toLocaleString("en-US"), money(columns.profit_usd[i]), money(columns.return_bps[i]), columns.bars[i]];
    for (const [k, text] of texts.entries()) {
      const cell = row.insertCell();
      cell.textContent = text;
      if (k > 2) cell.className = "num";
    }
  }
  at("trips").closest(".pages").hidden = at("paging").hidden = rows.length === 0;
  at("place").textContent = rows.length ? `${page * PAGE + 1} to ${Math.min((page + 1) * PAGE, rows.length)} of ${rows.length}` : "none";
  at("back").disabled = page === 0;
  at("next").disabled = page >= pages - 1;
}

function showArm(index) {
  arm = Number(index);
  page = 0;
  for (const select of document.querySelectorAll("select.arm")) select.value = arm;
  for (const panel of document.querySelectorAll("[data-arm]")) panel.hidden = Number(panel.dataset.arm) !== arm;
  at("stretch").replaceChildren(...details.candles.arms[arm].map((episode, i) =>
    new Option(`${episode.label}: ${episode.reason}`, i)));
  place("masks", figures[`masks@${arm}`]);
  place("rewards", figures[`rewards@${arm}`]);
  place("candles", candleFigure());
  listTrips();
}
function showLog() {
  figures.equity.layout.yaxis.type = at("log").checked ? "log" : "linear";
  place("equity", figures.equity);
}
function showCurve() {
  if (at("curve")) place("curves", figures[`curves@${at("curve").value}`]);
}
function showAll() {
  showLog();
  showCurve();
  place("equal_volatility", figures.equal_volatility);
  place("cost", figures.cost);
  showArm(arm);
  document.documentElement.dataset.drawn = document.querySelectorAll(".js-plotly-plot").length;
}

for (const select of document.querySelectorAll("select.arm")) select.onchange = () => showArm(select.value);
for (const [id, act] of [["log", showLog], ["curve", showCurve], ["stretch", () => place("candles", candleFigure())],
  ["order", () => { page = 0; listTrips(); }]]) if (at(id)) at(id).onchange = act;
at("back").onclick = () => { page -= 1; listTrips(); };
at("next").onclick = () => { page += 1; listTrips(); };
matchMedia("(prefers-color-scheme: dark)").onchange = showAll;
showAll();
document.documentElement.dataset.milliseconds = Math.round(performance.now());
