// Numbers over the epochs, drawn by uPlot (MIT).
import uPlot from "./uplot.js";
import { h, named } from "./dom.js";

const WIDTH = 320, HEIGHT = 150;

// A plot of lines, each a name and a Map from epochs, or what else is on the horizontal axis, to values. The epoch that is seen is marked.
export function curve(title, note, lines, epoch, { x: across = "epoch", joined = true, log = false } = {}) {
  const epochs = [...new Set(lines.flatMap(([, points]) => [...points.keys()]))].sort((a, b) => a - b);
  const color = colors();
  const axis = { stroke: color("--faint"), grid: { stroke: color("--rule"), width: 1 }, ticks: { show: false }, font: "11px system-ui", size: 26 };
  const place = h("div", { class: "plot", role: "img", "aria-label": described(title, lines) });
  const mark = (plot) => {
    if (across !== "epoch") return;
    const x = plot.valToPos(epoch, "x", true), { top, height } = plot.bbox;
    if (epoch < epochs[0] || epoch > epochs.at(-1)) return;
    plot.ctx.save();
    plot.ctx.fillStyle = color("--accent");
    plot.ctx.fillRect(x - 0.5, top, 1.5, height);
    plot.ctx.restore();
  };
  new uPlot({
    width: WIDTH, height: HEIGHT, legend: { show: false }, cursor: { show: false }, scales: { x: log ? { time: false, distr: 3 } : { time: false, range: (plot, low, high) => (low === high ? [low - 0.5, high + 0.5] : [low, high]) }, y: { range } },
    axes: [{ ...axis, ...(across === "epoch" ? { incrs: [1, 2, 5, 10, 20, 50, 100, 200, 500, 1000] } : { label: across, labelSize: 18, labelFont: axis.font }) }, { ...axis, size: 44 }],
    series: [{}, ...lines.map((_, n) => ({ stroke: color(`--line-${n % 8}`), width: 1.6, dash: n < 8 ? undefined : [5, 3], spanGaps: true, paths: joined ? undefined : () => null, points: { show: true, size: 5 } }))],
    hooks: { draw: [mark] },
  }, [epochs, ...lines.map(([, points]) => epochs.map((one) => points.get(one) ?? null))], place);
  return h("figure", { class: "curve" }, h("figcaption", {}, h("b", {}, named(title)), note && h("span", {}, ` ${note}`)), place,
    lines.length > 1 && h("ul", { class: "legend" }, lines.map(([name], n) => h("li", {}, h("i", { style: { background: `var(--line-${n % 8})` } }), named(name)))));
}

// The page's colours as a canvas takes them.
function colors() {
  const probe = document.body.appendChild(h("i", { hidden: true }));
  const known = new Map(["--faint", "--rule", "--accent", ...[0, 1, 2, 3, 4, 5, 6, 7].map((n) => `--line-${n}`)].map((name) => {
    probe.style.color = `var(${name})`;
    return [name, getComputedStyle(probe).color];
  }));
  probe.remove();
  return (name) => known.get(name);
}

// Shares go from 0 to 1, and what is the same at every epoch is in the middle.
function range(plot, low, high) {
  if (low >= 0 && high <= 1) return high > 0.2 || high === 0 ? [0, 1] : [0, 1.1 * high];
  const space = (high - low || Math.abs(high) || 1) * 0.08;
  return [low - space, high + space];
}

function described(title, lines) {
  const parts = lines.slice(0, 4).map(([name, points]) => {
    const [first, last] = [[...points][0], [...points].at(-1)];
    return `${name ? `${name}: ` : ""}${Number(first[1].toPrecision(3))} at epoch ${first[0]}, ${Number(last[1].toPrecision(3))} at epoch ${last[0]}`;
  });
  return `${title}. ${parts.join("; ")}`;
}
