// A page of one run at one epoch: a layer's wall of maps, an open map, and whatever else was shown of it.
import { changeOf } from "./compare.js";
import { curve } from "./curves.js";
import { h, named, sprite } from "./dom.js";
import { enlarge } from "./large.js";
import { map } from "./map.js";
import { wall } from "./wall.js";

export function pane(seen, { state, page, change, act, name }) {
  const { run, epoch, parts, marks, images } = seen;
  const layer = page.layer && run.network.find((one) => one.name === page.title);
  const heading = h("h2", { tabindex: "-1" }, named(page.title), layer && h("small", {}, `${layer.kind} ${layer.shape.join("×")}`));
  const content = [name && h("p", { class: "which" }, named(name), ` · epoch ${epoch}`), heading];
  if (!parts.length) content.push(h("p", { class: "note" }, "Nothing was shown of it by this epoch."));
  if (marks.length) content.push(h("ul", { class: "findings", "aria-label": `Findings, ${run.name}` }, marks.map((mark) => h("li", {}, h("b", {}, mark.kind), ` ${mark.sentence}`))));
  for (const part of parts) {
    const { head } = part.entry;
    const old = head.epoch !== epoch && head.epoch > 0;
    const late = old && h("p", { class: "late" }, `Not shown at epoch ${epoch}: this is epoch ${head.epoch}.`);
    const title = head.title !== page.title && h("h3", {}, named(head.title));
    content.push(h("section", { class: old ? "part old" : "part" }, title, head.note && h("p", { class: "note" }, head.note), late, part.problem && h("p", { class: "problem" }, part.problem),
      part.blocks.map((block) => block_(block, part, { state, run, epoch, act, marks, images, change: changeOf(part, change), between: Boolean(change) }))));
  }
  const lines = curves(run, page, epoch);
  if (lines.length) content.push(h("section", { class: "curves", "aria-label": `Numbers over the epochs, ${run.name}` }, lines));
  return h("article", { class: "pane", "aria-label": name ? `${page.title}, ${name}, epoch ${epoch}` : page.title }, content);
}

function block_(block, part, context) {
  switch (block.kind) {
    case "features": return [map(block, part, context), wall(block, part, context)];
    case "sentences": return [h("p", {}, block.lines[0]), block.lines.length > 1 && h("ul", { class: "findings" }, block.lines.slice(1).map((line) => h("li", {}, line)))];
    case "gallery": return h("div", { class: "tiles" }, block.tiles.map((tile, n) => tileOf(tile, part, (other) => other.tiles?.[n], context)));
    case "series": return h("div", { class: "row", tabindex: "0", role: "group", "aria-label": "An image, and what was made of it" },
      tileOf({ picture: block.original, label: "original", state: "" }, part), block.tiles.map((tile, n) => tileOf(tile, part, (other) => other.tiles?.[n], { ...context, original: block.original })));
    case "tracks": // where the maps are shown, they are drawn with the map that they belong to
      return part.blocks.some(({ kind }) => kind === "features") ? null : [map(block, part, context), wall(block, part, context)];
    case "plots": return h("div", { class: "curves" }, block.plots.map((plot) => curve(plot.title, plot.note, plot.lines.map(([line, points]) =>
      [line, new Map(points.filter(([x, y]) => x !== null && y !== null))]).filter(([, points]) => points.size), context.epoch, plot)));
    default: return null;
  }
}

// A tile, which opens large, beside the image that it was made of, and itself at other epochs.
function tileOf({ picture, label, state }, part, find, { run, original } = {}) {
  const wide = picture[3] > 230; // pictures with text in them keep their size
  const open = async () => {
    const at = part.blocks.findIndex((block) => find(block)?.picture === picture);
    const others = part.history.filter((entry) => entry !== part.entry);
    const bodies = (await Promise.all(others.map((entry) => run.body(entry).catch(() => null)))).filter(Boolean);
    const same = bodies.map(({ entry, blocks, sheets }) => ({ name: `epoch ${entry.head.epoch}`, sheets, picture: blocks[at] && find(blocks[at])?.picture }));
    if (original) same.unshift({ name: "original", sheets: part.sheets, picture: original });
    const alike = same.filter((one) => one.picture && one.picture[3] * picture[4] === one.picture[4] * picture[3]);
    const { epoch } = part.entry.head;
    enlarge(label, [{ name: epoch ? `epoch ${epoch}` : "", sheets: part.sheets, picture }, ...alike]);
  };
  const shown = sprite(part.sheets, picture, label);
  return h("figure", { class: `tile${wide ? " wide" : ""}${picture[3] > 176 ? " fine" : ""}`, style: { "--side": `${picture[3]}px` } },
    find ? h("button", { type: "button", class: "zoom", "aria-label": `Enlarge ${label}`, onclick: open }, shown) : shown,
    h("figcaption", {}, h("b", {}, named(label)), state && h("span", {}, ` ${state}`)));
}

// The numbers that belong to a layer, or to what a page of the whole network shows.
function curves(run, page, epoch) {
  const labels = new Set(run.shown.filter(({ head }) => !head.layer && `section/${head.title}` === page.key).flatMap(({ head }) => Object.keys(head.numbers).map((tag) => tag.split("/")[0])));
  return run.curves.flatMap(({ kind, title, note, lines }) => {
    const own = page.layer ? [...lines].filter(([line]) => line === page.title) : labels.has(kind) ? [...lines].slice(0, 12) : [];
    if (!own.some(([, points]) => points.size > 1)) return [];
    return [curve(title, note, own.map(([line, points]) => [page.layer ? "" : line, points]), epoch)];
  });
}

