// The network as a strip of layers: which can be seen, where one is, and how far each has settled.
import { h, named, number } from "./dom.js";

export function strip(run, pages, current, epoch, open) {
  const byLayer = new Map(pages.filter(({ layer }) => layer).map((page) => [page.title, page]));
  const settled = run.curves.filter(({ settles }) => settles);
  const rows = run.network.length ? run.network.filter(({ name, kind }) => byLayer.has(name) || !/^Dropout|^Identity$/.test(kind)) : [];
  const known = new Set(rows.map(({ name }) => name));
  for (const name of byLayer.keys()) if (!known.has(name)) rows.push({ name, kind: "", shape: [] });
  const marks = run.marked(epoch);
  const said = (name) => marks.reduce((sum, { head }) => sum + (Object.hasOwn(head.marks, name) ? head.marks[name] : 0), 0);
  const layers = rows.map((layer) => item(layer, byLayer.get(layer.name), current, last(settled, layer.name, epoch), said(layer.name), open));
  const others = pages.filter(({ layer }) => !layer).map((page) => h("li", { class: "other" }, button(page, current, open, named(page.title))));
  return [layers.length && h("ol", { class: "layers" }, layers), others.length && h("ul", { class: "others" }, others)].filter(Boolean);
}

function button(page, current, open, ...inside) {
  return h("button", { type: "button", "data-key": page.key, "aria-current": page.key === current.key && "page", onclick: () => open(page.key) }, inside);
}

function item(layer, page, current, value, marks, open) {
  const [channels = 1, side = 1] = layer.shape;
  const bar = h("i", { class: "bar", style: { width: `${3 + 1.6 * Math.log2(Math.max(channels, 1))}px`, height: `${6 + 6 * Math.log2(Math.max(side, 1))}px` } });
  const about = [layer.kind, layer.shape.join("×"), value && `${value.title}: ${number(value.value)}`, marks > 0 && `${marks} ${marks > 1 ? "findings" : "finding"}`].filter(Boolean).join(", ");
  const meter = value && h("i", { class: "meter" }, h("i", { style: { width: `${100 * Math.min(Math.max(value.value, 0), 1)}%` } }));
  const inside = [h("span", { class: "well" }, bar, marks > 0 && h("i", { class: "marked" })), h("span", { class: "name" }, named(layer.name)), meter, about && h("span", { class: "hidden" }, ` (${about})`)];
  return h("li", { title: about ? `${layer.name}: ${about}` : layer.name }, page ? button(page, current, open, inside) : h("span", { class: "unseen" }, inside));
}

// The last number of a kind that says how far layers have settled.
function last(curves, layer, epoch) {
  for (const { title, lines } of curves) {
    const points = [...(lines.get(layer) ?? [])].filter(([at]) => at <= epoch);
    if (points.length) return { title, value: points.at(-1)[1] };
  }
  return null;
}
