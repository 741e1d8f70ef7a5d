// Where the data come from: TensorBoard's routes, or the page itself. Both give the same; docs/viewer.md describes it.

// What a run has written, read from the server that this file came from.
export class TensorBoardSource {
  live = true;

  constructor(base = new URL(".", import.meta.url)) {
    this.base = base;
  }

  address(route, parameters = {}) {
    const url = new URL(route, this.base);
    url.search = new URLSearchParams(parameters);
    return url.href;
  }

  async json(route, parameters) {
    let answer;
    try {
      answer = await fetch(this.address(route, parameters));
    } catch {
      throw new Error("TensorBoard does not answer. The page goes on trying.");
    }
    if (!answer.ok) throw new Error(answer.status < 500 ? await answer.text() : "TensorBoard could not read the data.");
    return answer.json();
  }

  runs() {
    return this.json("runs");
  }

  entries(run) {
    return this.json("entries", { run });
  }

  body(run, entry) {
    return this.json("body", { run, id: entry.id, at: entry.at });
  }

  sheet(run, entry, n) {
    return this.address("sheet", { run, id: entry.id, n, at: entry.at });
  }
}

// A report: everything is in the page, each part in a script element that holds it as JSON.
export class EmbeddedSource {
  live = false;

  // `index` has a title, facts and what was left out, and of each run its entries.
  constructor(index) {
    this.about = index;
    this.index = index.runs;
    this.urls = new Map();
  }

  async runs() {
    return this.index.map(({ run }) => run);
  }

  async entries(run) {
    return this.index.find((one) => one.run === run).entries;
  }

  async body(run, entry) {
    return embedded(entry.body);
  }

  // An address is short: one that holds the picture itself would stand in the page once for each of its tiles.
  sheet(run, entry, n) {
    const id = entry.sheets[n];
    if (!this.urls.has(id)) {
      this.urls.set(id, URL.createObjectURL(new Blob([decoded(embedded(id))], { type: "image/webp" })));
    }
    return this.urls.get(id);
  }
}

// A loop takes a twentieth of the time of Uint8Array.from with a function.
function decoded(base64) {
  const text = atob(base64), bytes = new Uint8Array(text.length);
  for (let n = 0; n < text.length; n++) bytes[n] = text.charCodeAt(n);
  return bytes;
}

function embedded(id) {
  return JSON.parse(document.getElementById(id).textContent);
}
