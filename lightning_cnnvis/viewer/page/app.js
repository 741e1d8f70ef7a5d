// The viewer: what the address says is shown, and what changes is read anew.
import { addressOf, go, readAddress } from "./address.js";
import { comparison } from "./compare.js";
import { Run } from "./data.js";
import { h, named, toSee } from "./dom.js";
import { pane } from "./pane.js";
import { strip } from "./strip.js";
import { Timeline } from "./timeline.js";

const POLL = 4000; // milliseconds

const NOTHING = [
  "There is nothing to see yet.",
  "This tab shows what the callbacks of lightning_cnnvis find out while a network trains: add one, such as DeconvNetProjection(), to the Trainer's callbacks, " +
    "and log to TensorBoard. What it finds appears here after the first epoch. Runs of earlier versions, and of other tools, have their pictures under Images.",
];

export async function start(root, source, options = {}) {
  const app = new App(root, source, options);
  await app.refresh();
  await app.show();
  if (source.live) app.follow();
  return app;
}

class App {
  constructor(root, source, { page = location.href } = {}) {
    [this.source, this.page] = [source, page];
    this.runs = new Map();
    this.turn = 0;
    this.timeline = new Timeline((epoch, playing) => this.change({ epoch }, { replace: true, playing }));
    this.about = source.about ?? {};
    this.title = h("h1", {}, named(this.about.title ?? "Convnet"));
    this.choices = h("div", { class: "choices" });
    this.strip = h("nav", { class: "strip", "aria-label": "Layers and other pages" });
    this.status = h("p", { class: "status", role: "status" });
    this.main = h("main", { id: "main", tabindex: "-1" });
    root.classList.add("cnnvis");
    root.replaceChildren(...[
      h("header", {},
        h("a", { class: "skip", href: "#", onclick: (event) => (event.preventDefault(), this.main.focus()) }, "Skip to the pictures"),
        h("div", { class: "titles" }, this.title, this.choices),
        this.about.facts?.length > 0 && h("dl", { class: "facts" }, this.about.facts.map(([name, value]) => h("div", {}, h("dt", {}, named(name)), h("dd", {}, named(value)))))),
      this.strip, this.timeline.element, this.status, this.main,
      h("footer", {}, h("p", {}, "Keys: ", h("kbd", {}, "←"), " ", h("kbd", {}, "→"), " epochs, ", h("kbd", {}, "P"), " play, ", h("kbd", {}, "["), " ", h("kbd", {}, "]"),
        " layers, ", h("kbd", {}, ","), " ", h("kbd", {}, "."), " maps, ", h("kbd", {}, "Esc"), " close."),
        this.about.left_out?.length > 0 && h("details", {}, h("summary", {}, "Left out"), h("ul", {}, this.about.left_out.map((line) => h("li", {}, named(line))))),
        this.about.made && h("p", {}, this.about.made)),
    ].filter(Boolean));
    window.addEventListener("hashchange", () => this.show());
    // the curves are drawn in the colours of the page
    window.addEventListener("cnnvis-theme", () => this.show());
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => this.show());
    document.addEventListener("keydown", (event) => this.key(event));
  }

  // Reads which runs there are and what each that is looked at has; whether anything is new.
  async refresh() {
    try {
      const names = await this.source.runs();
      let news = names.join("\n") !== [...this.runs.keys()].join("\n");
      this.runs = new Map(names.map((name) => [name, this.runs.get(name) ?? new Run(this.source, name)]));
      for (const run of this.looked(readAddress())) news = (await run.refresh()) || news;
      this.say(news || this.failed ? "" : null);
      this.failed = false;
      return news;
    } catch (error) {
      this.failed = true;
      this.say(error.message);
      return false;
    }
  }

  // The run, and the one that it is compared with.
  looked(state) {
    const run = this.runs.get(state.run) ?? [...this.runs.values()].at(-1);
    const other = state.with === undefined ? undefined : this.runs.get(state.with);
    return [run, other].filter(Boolean);
  }

  follow() {
    setInterval(async () => {
      if (document.hidden || this.busy) return;
      this.busy = true;
      try {
        const before = this.looked(readAddress())[0]?.epochs.at(-1);
        if (!(await this.refresh())) return;
        await this.show();
        const after = this.looked(readAddress())[0]?.epochs.at(-1);
        if (after !== before) this.say(`Epoch ${after} has arrived.`);
      } finally {
        this.busy = false;
      }
    }, POLL);
  }

  say(text) {
    if (text !== null && this.status.textContent !== text) this.status.textContent = text;
  }

  change(what, { replace = false } = {}) {
    const state = { ...readAddress(), ...what };
    const last = this.epochs?.at(-1);
    if (state.epoch === last) delete state.epoch; // the last epoch is followed
    for (const key of Object.keys(state)) if (state[key] === null) delete state[key];
    go(state, { replace });
  }

  async show() {
    const turn = ++this.turn;
    const state = readAddress();
    const [run, other] = this.looked(state);
    if (!run) return this.nothing(NOTHING);
    try {
      for (const one of [run, other]) if (one && !one.state) await one.refresh();
      const pages = pagesOf(run, other);
      this.epochs = [...new Set([run, other].filter(Boolean).flatMap((one) => one.epochs))].sort((a, b) => a - b);
      if (!pages.length) return this.nothing([NOTHING[0], ...run.problems, ...(run.problems.length ? [] : NOTHING.slice(1))]);
      const page = pages.find(({ key }) => key === state.page) ?? pages[0];
      const epoch = state.epoch ?? this.epochs.at(-1);
      const views = [{ run, epoch }, ...(other ? [{ run: other, epoch: state.at ?? epoch }] : [])];
      const seen = await Promise.all(views.map((view) => read(view, page, { first: this.key_ === undefined })));
      if (turn !== this.turn) return;
      this.render(state, { run, other, pages, page, epoch, seen });
    } catch (error) {
      if (turn === this.turn) this.nothing([error.message]);
    }
  }

  nothing(sentences) {
    this.strip.replaceChildren();
    this.timeline.hide();
    this.choose(readAddress());
    this.main.replaceChildren(h("div", { class: "nothing" }, ...sentences.map((sentence, n) => h(n ? "p" : "h2", {}, sentence))));
  }

  render(state, { run, other, pages, page, epoch, seen }) {
    const focus = document.activeElement?.getAttribute?.("data-key");
    this.pages = pages;
    this.title.replaceChildren(named(this.about.title ?? (run.name === "." ? "Convnet" : run.name)));
    this.choose(state, run, other, epoch);
    this.strip.replaceChildren(...strip(run, pages, page, epoch, (key) => this.change({ page: key, map: null })));
    for (const row of this.strip.children) toSee(row);
    this.timeline.show(this.epochs, epoch, run.epochsOf(page.key));
    const change = seen.length === 2 ? comparison(...seen) : undefined;
    const act = (what, options) => this.change(what, options);
    this.panes = seen.map((one, n) => pane(one, { state, page, change, act, name: other && one.run.name }));
    this.main.classList.toggle("two", seen.length === 2);
    this.main.replaceChildren(
      ...[...new Set(seen.flatMap((one) => one.run.problems))].map((problem) => h("p", { class: "problem" }, problem)),
      ...this.panes,
    );
    const key = `${page.key} ${state.map ?? ""}`;
    if (this.key_ !== undefined && this.key_ !== key) {
      const heading = this.main.querySelector(state.map === undefined ? "h2" : ".map h3");
      if (state.map !== undefined) heading?.scrollIntoView({ block: "nearest" });
      if (state.map !== undefined || focus === null) heading?.focus({ preventScroll: true });
    } else if (focus) {
      document.querySelector(`[data-key="${CSS.escape(focus)}"]`)?.focus({ preventScroll: true });
    }
    this.key_ = key;
    document.title = [page.title, epoch > 0 && `epoch ${epoch}`, this.about.title ?? run.name].filter(Boolean).join(" · ");
  }

  // Which run, what it is compared with, and a link to what is seen.
  choose(state, run, other, epoch) {
    const option = (value, text, chosen) => h("option", { value, selected: chosen }, text);
    const names = [...this.runs.keys()];
    const parts = [];
    if (names.length > 1) {
      parts.push(h("label", {}, "Run ", h("select", { "data-key": "run", onchange: ({ target }) => this.change({ run: target.value }) },
        names.map((name) => option(name, name, name === run?.name)))));
    }
    if (run && (names.length > 1 || this.epochs.length > 1)) {
      const compared = other ? (other === run ? "=" : `+${other.name}`) : "";
      const pick = ({ target: { value } }) => this.change(
        value === "" ? { with: null, at: null } : value === "=" ? { with: run.name, at: this.epochs[0] } : { with: value.slice(1), at: null });
      parts.push(h("label", {}, "Beside ", h("select", { "data-key": "with", onchange: pick },
        option("", "nothing", compared === ""), this.epochs.length > 1 && option("=", "another epoch", compared === "="),
        names.filter((name) => name !== run.name).map((name) => option(`+${name}`, name, compared === `+${name}`)))));
    }
    if (other) {
      parts.push(h("label", {}, "at ", h("select", { "data-key": "at", onchange: ({ target }) => this.change({ at: target.value === "" ? null : Number(target.value) }) },
        other !== run && option("", "the same epoch", state.at === undefined),
        other.epochs.map((one) => option(one, `epoch ${one}`, one === state.at)))));
    }
    if (run && this.source.live) parts.push(h("a", { class: "link", href: this.page.split("#")[0] + addressOf({ ...state, run: run.name, epoch }), target: "_blank", rel: "noopener" }, "Link to this"));
    this.choices.replaceChildren(...parts);
  }

  key(event) {
    if (event.ctrlKey || event.metaKey || event.altKey || event.target.closest("input, select, textarea, dialog") || !this.pages) return;
    const state = readAddress();
    const turn = (list, at, step) => list[Math.min(Math.max(at + step, 0), list.length - 1)];
    const epochs = this.epochs, page = this.pages.findIndex(({ key }) => key === state.page);
    const epoch = epochs.indexOf(state.epoch ?? epochs.at(-1));
    const moves = {
      ArrowLeft: () => this.timeline.step(-1),
      ArrowRight: () => this.timeline.step(1),
      Home: () => this.change({ epoch: epochs[0] }, { replace: true }),
      End: () => this.change({ epoch: epochs.at(-1) }, { replace: true }),
      p: () => this.timeline.toggle(),
      "[": () => this.change({ page: turn(this.pages, Math.max(page, 0), -1).key, map: null }),
      "]": () => this.change({ page: turn(this.pages, Math.max(page, 0), 1).key, map: null }),
      ",": () => this.neighbour(state, -1),
      ".": () => this.neighbour(state, 1),
      Escape: () => state.map !== undefined && this.change({ map: null }),
    };
    const move = moves[event.key.length === 1 ? event.key.toLowerCase() : event.key];
    if (!move || epoch < 0) return;
    move();
    event.preventDefault();
  }

  // Opens the map before or after the one that is open, in the order of the wall.
  neighbour(state, step) {
    const order = [...this.panes[0].querySelectorAll(".cell:not(:disabled)")].map((cell) => Number(cell.dataset.channel));
    const at = order.indexOf(state.map) + step;
    if (order[at] !== undefined) this.change({ map: order[at] }, { replace: state.map !== undefined });
  }
}

function pagesOf(run, other) {
  const pages = new Map([...run.pages, ...(other?.pages ?? [])].map((page) => [page.key, page]));
  return [...pages.values()].sort((a, b) => b.layer - a.layer || (a.layer ? a.order - b.order : 0));
}

// Everything that a page shows of a run at an epoch, with what it showed before, and the sheets ready to be drawn.
async function read({ run, epoch }, page, { first }) {
  const entries = run.at(page.key, epoch);
  const parts = await Promise.all(entries.map(async (entry) => {
    const history = run.history(entry), before = history[history.indexOf(entry) - 1];
    try {
      const [body, earlier] = await Promise.all([run.body(entry), before && run.body(before).catch(() => undefined)]);
      return { ...body, earlier, history };
    } catch (error) {
      return { entry, history, blocks: [], sheets: [], problem: error.message };
    }
  }));
  // where nothing is seen yet, nothing can flash
  if (!first) await Promise.race([
    Promise.all(parts.flatMap(({ sheets }) => sheets.map(ready))),
    new Promise((resolve) => setTimeout(resolve, 1500)),
  ]);
  const [marks, images] = page.layer ? await Promise.all([marksOf(run, page.title, epoch), imagesOf(run, page.title, epoch)]) : [[], new Map()];
  return { run, epoch, parts, marks, images };
}

// What is to be said of a layer and its maps.
async function marksOf(run, layer, epoch) {
  const bodies = await Promise.all(run.marked(epoch, layer).map((entry) => run.body(entry).catch(() => null)));
  return bodies.flatMap((body) => (body ? body.marks.filter((mark) => mark.layer === layer) : []));
}

// By a map's number, the image that was optimised for it.
async function imagesOf(run, layer, epoch) {
  const images = new Map();
  for (const body of await Promise.all(run.optimised(epoch, layer).map((entry) => run.body(entry).catch(() => null)))) {
    for (const tile of body?.blocks.flatMap((block) => block.tiles ?? []) ?? []) {
      if (tile.of?.[0] === layer) images.set(tile.of[1], { ...tile, sheets: body.sheets, epoch: body.entry.head.epoch });
    }
  }
  return images;
}

// Until a picture is decoded, what stands in its place would flash.
async function ready(sheet) {
  if (sheet.decoded) return;
  const image = new Image();
  image.src = sheet.url;
  try {
    await image.decode();
    sheet.decoded = image;
  } catch {
    // it is shown as an empty place
  }
}
