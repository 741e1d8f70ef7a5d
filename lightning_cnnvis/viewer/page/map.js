// An open map: its strongest activations with their patches, and the film strip over the epochs.
import { curve } from "./curves.js";
import { h, number, sprite, toSee } from "./dom.js";

export function map(block, part, { state, run, epoch, act, marks, images }) {
  const found = state.map === undefined ? undefined : block.maps.find(({ channel }) => channel === state.map);
  if (!found) return null;
  const { channel, activations, picture } = found;
  const columns = activations?.length;
  const film = h("div", { class: "film", tabindex: "0", role: "group", "aria-label": "Over the epochs" });
  const lines = h("div", { class: "curves" });
  fill(film, lines, part, { run, channel, epoch, act });
  return h("section", { class: "map", "aria-label": `Map ${channel}, ${run.name}, epoch ${epoch}` },
    h("header", {}, h("h3", { tabindex: "-1" }, `Map ${channel}`),
      h("button", { type: "button", class: "close", "data-key": "close", onclick: () => act({ map: null }) }, "Close")),
    marks.filter(({ channels }) => channels.includes(channel)).map((mark) => h("p", { class: "late" }, h("b", {}, mark.kind), ` ${mark.sentence}`)),
    activations && [h("div", { class: "top", style: { "--k": columns } }, activations.map((activation, column) => h("figure", {},
      activation > 0 ? [sprite(part.sheets, picture, `Projection ${column + 1}`, { rows: 2, columns, row: 0, column }),
        sprite(part.sheets, picture, `Image patch ${column + 1}`, { rows: 2, columns, row: 1, column })] : null,
      h("figcaption", {}, activation > 0 ? number(activation) : "no image")))),
    h("p", { class: "note" }, "The strongest activations over the images, projected to pixels (zero is mid-grey), each above the image patch that caused it.")],
    film, optimised(images.get(channel), channel), lines);
}

// The image that was optimised for the map: how its peak compares with the strongest real activation is in its state.
function optimised(image, channel) {
  if (!image) return null;
  const { sheets, picture, state, epoch } = image;
  return h("figure", { class: "optimised" }, sprite(sheets, picture, `Image optimised for map ${channel}`),
    h("figcaption", {}, h("b", {}, "Optimised for this map"), state && ` ${state}`, epoch > 0 && ` · epoch ${epoch}`));
}

// Reads the other epochs after what is on the page is there.
async function fill(film, lines, part, { run, channel, epoch, act }) {
  let frames;
  try {
    frames = (await Promise.all(part.history.map((entry) => run.body(entry)))).map((body) => frame(body, channel)).filter(Boolean);
  } catch (error) {
    film.replaceChildren(h("p", { class: "problem" }, error.message));
    return;
  }
  if (frames.length < 2) return film.remove();
  const fixed = frames.some(({ track }) => track);
  film.replaceChildren(
    h("div", { class: "rows", "aria-hidden": "true" }, h("span", {}), h("span", {}, "strongest"), h("span", {}, "its patch"), fixed && [h("span", {}, "one image"), h("span", {}, "its patch")]),
    ...frames.map(({ at, map, track, sheets }) => h("button", {
      type: "button", class: "frame", "data-key": `frame ${at}`, "aria-current": at === epoch && "true", "aria-label": `Go to epoch ${at}`, onclick: () => act({ epoch: at }, { replace: true }),
    }, h("span", {}, String(at)),
    [0, 1].map((row) => strongest(map, track, sheets, row)),
    fixed && [2, 3].map((row) => track ? sprite(sheets, track.picture, row === 2 ? "projection from one image" : "patch of that image", { rows: 4, columns: 1, row, column: 0 }) : h("i", { class: "sprite none" })))));
  toSee(film);
  const points = (find) => new Map(frames.map((one) => [one.at, find(one)]).filter(([, value]) => typeof value === "number"));
  const activation = points(({ map }) => map?.activations[0]), similarity = points(({ track }) => track?.similarity);
  lines.replaceChildren(...[
    activation.size > 1 && curve("Strongest activation", "", [["", activation]], epoch),
    similarity.size > 1 && curve("Similarity to the epoch before", "Of the projections from one image: near 1 where the map has settled.", [["", similarity]], epoch),
  ].filter(Boolean));
}

function strongest(map, track, sheets, row) {
  const name = row ? "patch" : "projection";
  if (map?.activations[0] > 0) return sprite(sheets, map.picture, name, { rows: 2, columns: map.activations.length, row, column: 0 });
  return track && !map ? sprite(sheets, track.picture, name, { rows: 4, columns: 1, row, column: 0 }) : h("i", { class: "sprite none" });
}

function frame({ entry, blocks, sheets }, channel) {
  const of = (kind) => blocks.find((block) => block.kind === kind)?.maps.find((one) => one.channel === channel);
  const [map, track] = [of("features"), of("tracks")];
  return map || track ? { at: entry.head.epoch, map, track, sheets } : null;
}
