// What a run has shown: checked, sorted, and read when it is needed.

export const FORMAT = 1;

const isText = (value) => typeof value === "string";
const isList = (value, of) => Array.isArray(value) && value.every(of);
const isNumber = (value) => typeof value === "number" && Number.isFinite(value);
const isMaybe = (value) => value === null || isNumber(value);
const isPicture = (value, sheets) =>
  isList(value, isNumber) && value.length === 5 && value[0] in sheets && value[3] > 0 && value[4] > 0;

// A sentence on what is wrong with a head, or nothing.
function refusal(head) {
  if (head === null || typeof head !== "object" || !isNumber(head.format)) return "Some data cannot be read: they are broken.";
  if (head.format > FORMAT) return "Some data were written by a later version of lightning_cnnvis. Update the one that shows them.";
  const whole = head.kind === "network"
    ? isList(head.layers, (layer) => layer && isText(layer.name) && isText(layer.kind) && isList(layer.shape, isNumber))
    : head.kind !== "section" ||
      ([head.label, head.part, head.title, head.note].every(isText) && isNumber(head.epoch) && isNumber(head.order) &&
        typeof head.layer === "boolean" && isObject(head.numbers) && Object.values(head.numbers).every(isNumber) &&
        isObject(head.plots) && Object.values(head.plots).every((plot) => Array.isArray(plot) && isText(plot[0])) &&
        [head.marks, head.optimised].every((counts) => counts === undefined || (isObject(counts) && Object.values(counts).every(isNumber))));
  return whole ? null : "Some data cannot be read: they are broken.";
}

const isObject = (value) => value !== null && typeof value === "object" && !Array.isArray(value);

// The blocks of a body that can be shown. A kind that is not known is left out: a later version may have added it.
function blocksOf(body, sheets) {
  const tile = (one) => isObject(one) && isPicture(one.picture, sheets) && isText(one.label) && isText(one.state) &&
    (one.of === undefined || (Array.isArray(one.of) && isText(one.of[0]) && Number.isInteger(one.of[1])));
  const checks = {
    sentences: (block) => isList(block.lines, isText),
    gallery: (block) => isList(block.tiles, tile),
    series: (block) => isPicture(block.original, sheets) && isList(block.tiles, tile),
    features: (block) => isNumber(block.total) && isList(block.maps, (one) =>
      isObject(one) && Number.isInteger(one.channel) && isList(one.activations, isMaybe) && one.activations.length > 0 && isPicture(one.picture, sheets)),
    tracks: (block) => isList(block.maps, (one) =>
      isObject(one) && Number.isInteger(one.channel) && isMaybe(one.similarity) && isPicture(one.picture, sheets)),
    plots: (block) => isList(block.plots, (plot) => isObject(plot) && [plot.title, plot.note, plot.x].every(isText) && isList(plot.lines, (line) =>
      Array.isArray(line) && isText(line[0]) && isList(line[1], (point) => isList(point, isMaybe) && point.length === 2))),
  };
  if (!isObject(body) || !Array.isArray(body.blocks)) throw new Error("Some data cannot be read: they are broken.");
  return body.blocks.filter((block) => isObject(block) && checks[block.kind]).map((block) => {
    if (!checks[block.kind](block)) throw new Error("Some data cannot be read: they are broken.");
    return block;
  });
}

export class Run {
  constructor(source, name) {
    this.source = source;
    this.name = name;
    this.network = [];
    this.shown = []; // {id, at, head} of sections
    this.problems = [];
    this.bodies = new Map();
    this.state = "";
  }

  // Reads what there is; whether anything is new.
  async refresh() {
    const entries = await this.source.entries(this.name);
    const state = JSON.stringify(entries.map(({ id, at }) => [id, at]));
    if (state === this.state) return false;
    const problems = new Set(), shown = [];
    let latest = null;
    for (const entry of entries) {
      const problem = refusal(entry.head);
      if (problem) problems.add(problem);
      else if (entry.head.kind === "section") shown.push(entry);
      else if (entry.head.kind === "network" && (!latest || entry.at >= latest.at)) latest = entry;
    }
    shown.sort(({ head: a }, { head: b }) => a.epoch - b.epoch || compare(a.label, b.label) || compare(a.part, b.part) || a.order - b.order);
    this.network = latest ? latest.head.layers : [];
    [this.shown, this.problems, this.state] = [shown, [...problems], state];
    return true;
  }

  // What is of no epoch has the number 0, and is seen at all of them.
  get epochs() {
    const epochs = [...new Set(this.shown.map(({ head }) => head.epoch))].sort((a, b) => a - b);
    return epochs.length > 1 ? epochs.filter((epoch) => epoch > 0) : epochs;
  }

  // The pages: the layers in the order in which they run, then what is about the whole network.
  get pages() {
    const pages = new Map();
    const order = new Map(this.network.map(({ name }, n) => [name, n]));
    for (const { head } of this.shown) {
      const key = pageOf(head);
      if (!pages.has(key)) pages.set(key, { key, title: head.title, layer: head.layer, order: order.get(head.title) ?? order.size });
    }
    return [...pages.values()].sort((a, b) => b.layer - a.layer || (a.layer ? a.order - b.order : 0));
  }

  // The kinds of number that there are, each with its title, its note, whether 1 means settled, and its lines of points.
  get curves() {
    const curves = new Map();
    for (const { head } of this.shown) {
      for (const [tag, value] of Object.entries(head.numbers)) {
        const [kind, ...rest] = tag.split("/"), line = rest.join("/");
        const [title, note = "", settles = false] = head.plots[kind] ?? [kind.replaceAll("_", " ")];
        if (!curves.has(kind)) curves.set(kind, { kind, title, note, settles, lines: new Map() });
        const { lines } = curves.get(kind);
        if (!lines.has(line)) lines.set(line, new Map());
        lines.get(line).set(head.epoch, value);
      }
    }
    return [...curves.values()];
  }

  // What a page has at an epoch: of each thing the last that was shown by then, or else the first that was shown.
  at(page, epoch) {
    const found = new Map();
    for (const entry of this.shown) {
      const { head } = entry;
      const about = pageOf(head) === page || (!head.layer && page === `layer/${head.part}`);
      const key = `${head.label}/${head.part}/${head.order}`;
      if (about && (head.epoch <= epoch || !found.has(key))) found.set(key, entry);
    }
    return [...found.values()].sort(({ head: a }, { head: b }) => b.layer - a.layer || compare(a.label, b.label) || compare(a.part, b.part) || a.order - b.order);
  }

  // What has something to say of layers, or of one of them: of each thing the last by an epoch.
  marked(epoch, layer) {
    return this.counted("marks", epoch).filter(({ head }) => (layer === undefined ? Object.keys(head.marks).length : Object.hasOwn(head.marks, layer)));
  }

  // What has images that were optimised for maps of a layer: of each thing the last by an epoch.
  optimised(epoch, layer) {
    return this.counted("optimised", epoch).filter(({ head }) => Object.hasOwn(head.optimised, layer));
  }

  counted(kind, epoch) {
    const found = new Map();
    for (const entry of this.shown) {
      const { head } = entry;
      if (head[kind] && head.epoch <= epoch) found.set(`${head.label}/${head.part}/${head.order}`, entry);
    }
    return [...found.values()];
  }

  epochsOf(page) {
    const epochs = new Set(this.shown.filter(({ head }) => pageOf(head) === page).map(({ head }) => head.epoch));
    return epochs.has(0) ? new Set(this.epochs) : epochs;
  }

  // The same thing at every epoch at which it was shown.
  history({ head }) {
    return this.shown.filter(({ head: one }) => one.label === head.label && one.part === head.part && one.order === head.order);
  }

  // The blocks of an entry with its sheets.
  body(entry) {
    const key = `${entry.id} ${entry.at}`;
    if (!this.bodies.has(key)) this.bodies.set(key, this.read(entry).catch((error) => {
      this.bodies.delete(key);
      throw error;
    }));
    return this.bodies.get(key);
  }

  async read(entry) {
    const body = await this.source.body(this.name, entry);
    if (!isObject(body) || !isList(body.sheets, (size) => isList(size, isNumber) && size.length === 2)) throw new Error("Some data cannot be read: they are broken.");
    const blocks = blocksOf(body, body.sheets);
    const sheets = body.sheets.map((size, n) => lazily(size, () => this.source.sheet(this.name, entry, n)));
    const marks = (Array.isArray(body.marks) ? body.marks : []).filter((mark) =>
      isObject(mark) && [mark.layer, mark.kind, mark.sentence].every(isText) && isList(mark.channels, Number.isInteger));
    return { entry, blocks, sheets, marks };
  }
}

const lazily = (size, find) => ({
  size,
  get url() {
    return (this.known ??= find());
  },
});

export const pageOf = (head) => (head.layer ? `layer/${head.title}` : `section/${head.title}`);
export const compare = (a, b) => (a < b ? -1 : a > b ? 1 : 0);
