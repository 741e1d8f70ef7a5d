// A layer's maps as a wall: of each the strongest activation, projected, beside the patch of the image that caused it.
import { h, number, sprite } from "./dom.js";

const ORDERS = { number: "number", activation: "activation", change: "change", finding: "finding" };
const KINDS = { all: "all", active: "active ones", dead: "never active", finding: "with findings" };

export function wall(block, { sheets, entry }, { state, act, change, between, marks, images }) {
  const sort = state.sort in ORDERS ? state.sort : between ? "change" : "number";
  const said = new Map();
  for (const { channels, kind } of marks) for (const channel of channels) said.set(channel, [...(said.get(channel) ?? []), kind]);
  const keys = {
    finding: ({ channel }) => -(said.get(channel)?.length ?? 0),
    number: ({ channel }) => channel,
    activation: ({ activations }) => -(activations?.[0] ?? -Infinity),
    change: ({ channel }) => -(change?.get(channel) ?? 0),
  };
  const only = state.only in KINDS ? state.only : "all";
  const active = ({ activations }) => !activations || activations[0] > 0;
  const kept = { all: () => true, active, dead: (map) => !active(map), finding: ({ channel }) => said.has(channel) };
  const maps = block.maps.filter(kept[only]).sort((a, b) => keys[sort](a) - keys[sort](b) || a.channel - b.channel);
  const choice = h("label", {}, "Sort by ", h("select", { "data-key": `sort ${entry.id}`, onchange: ({ target }) => act({ sort: target.value }, { replace: true }) },
    Object.entries(ORDERS).map(([value, text]) => h("option", { value, selected: value === sort }, text))));
  const filter = h("label", {}, "Show ", h("select", { "data-key": `only ${entry.id}`, onchange: ({ target }) => act({ only: target.value === "all" ? null : target.value }, { replace: true }) },
    Object.entries(KINDS).map(([value, text]) => h("option", { value, selected: value === only }, text))));
  const optimised = state.beside === "optimised" && images.size > 0;
  const beside = images.size > 0 && h("label", {}, "Beside each ", h("select", { "data-key": `beside ${entry.id}`, onchange: ({ target }) => act({ beside: target.value === "patch" ? null : target.value }, { replace: true }) },
    [["patch", "its image patch"], ["optimised", "the image optimised for it"]].map(([value, text]) => h("option", { value, selected: optimised === (value === "optimised") }, text))));
  return [
    h("div", { class: "bar-of-wall" }, h("p", {}, block.total ? `${block.maps.length} of ${block.total} feature maps` : `${block.maps.length} feature maps`), choice, filter, beside),
    h("div", { class: "wall" }, maps.map((map) => cell(map, sheets, { state, act, image: optimised ? images.get(map.channel) ?? null : undefined, change: change?.get(map.channel), order: sort, said: said.get(map.channel) }))),
  ];
}

// Tracks have one column of four cells, of which the first two are the same as those of maps.
function cell(map, sheets, { state, act, image, change, order, said }) {
  const { channel, activations, similarity, picture } = map;
  const active = !activations || activations[0] > 0;
  const at = (row) => (activations ? { rows: 2, columns: activations.length, row, column: 0 } : { rows: 4, columns: 1, row, column: 0 });
  const line = !active ? "never active" : activations ? number(activations[0]) : similarity === null ? "" : `similarity ${number(similarity)}`;
  return h("button", {
    type: "button", class: "cell", disabled: !active, "data-channel": channel, "data-key": `map ${channel}`,
    "aria-pressed": String(state.map === channel),
    onclick: () => act({ map: state.map === channel ? null : channel }),
  },
  active ? [sprite(sheets, picture, `Map ${channel}, strongest activation projected`, at(0)), second(image, channel) ?? sprite(sheets, picture, "Its image patch", at(1))] : [h("i", { class: "sprite none" }), h("i", { class: "sprite none" })],
  h("span", { class: "caption" }, h("b", {}, `#${channel}`), ` ${line}`,
    said && h("span", { class: "changed" }, ` ${said.join(", ")}`),
    active && change >= 0.005 && order === "change" ? h("span", { class: "changed" }, ` Δ ${Math.round(100 * change)} %`) : null));
}

// In the place of the patch: the image that was optimised for the map, or an empty place where there is none.
function second(image, channel) {
  if (image === undefined) return null;
  return image ? sprite(image.sheets, image.picture, `Image optimised for map ${channel}`) : h("i", { class: "sprite none" });
}
