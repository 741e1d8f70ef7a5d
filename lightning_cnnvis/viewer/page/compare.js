// What differs most between two runs or epochs: by how much the strongest activation of each map has changed.

export function change(a, b) {
  if (typeof a !== "number" || typeof b !== "number") return a === b ? 0 : 1;
  const larger = Math.max(Math.abs(a), Math.abs(b));
  return larger === 0 ? 0 : Math.abs(a - b) / larger;
}

const strongest = (body) => new Map(
  (body?.blocks ?? []).filter(({ kind }) => kind === "features").flatMap(({ maps }) => maps.map((map) => [map.channel, map.activations[0]])));

// Channel by channel, in [0, 1], between two bodies of one thing; undefined where there is no other.
export function changes(body, other) {
  if (!other) return undefined;
  const before = strongest(other);
  return new Map([...strongest(body)].map(([channel, value]) => [channel, before.has(channel) ? change(value, before.get(channel)) : 1]));
}

const keyOf = ({ entry: { head } }) => `${head.label}/${head.part}/${head.order}`;

// By what a thing is: the changes between the two panes.
export function comparison(a, b) {
  const others = new Map(b.parts.map((part) => [keyOf(part), part]));
  return new Map(a.parts.map((part) => [keyOf(part), changes(part, others.get(keyOf(part)))]));
}

export const changeOf = (part, between) => (between ? between.get(keyOf(part)) : changes(part, part.earlier));
