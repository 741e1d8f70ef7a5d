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

// A report: everything is in the page, each part under the id of a script element that holds it as JSON.
export class EmbeddedSource {
  live = false;

  constructor(index) {
    this.index = index;
  }

  async runs() {
    return this.index.map(({ run }) => run);
  }

  async entries(run) {
    return this.index.find((one) => one.run === run).entries;
  }

  async body(run, entry) {
    return read(entry.body);
  }

  sheet(run, entry, n) {
    return `data:image/webp;base64,${read(entry.sheets[n])}`;
  }
}

function read(id) {
  return JSON.parse(document.getElementById(id).textContent);
}
