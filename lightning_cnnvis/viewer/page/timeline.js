// One slider of epochs for everything. Epochs at which a page has nothing new are hollow.
import { h } from "./dom.js";

const PAUSE = 700; // milliseconds that an epoch is shown while it plays

export class Timeline {
  constructor(move) {
    this.move = move;
    this.button = h("button", { type: "button", class: "play", onclick: () => this.toggle() });
    this.input = h("input", { type: "range", id: "epoch", min: 0, step: 1, "data-key": "epoch", "aria-label": "Epoch", oninput: () => this.to(Number(this.input.value)) });
    this.output = h("output", { for: "epoch" });
    this.ticks = h("div", { class: "ticks", "aria-hidden": "true" });
    this.element = h("section", { class: "timeline", "aria-label": "Epochs", hidden: true }, this.button,
      h("div", { class: "rail" }, this.input, this.ticks), this.output);
    this.epochs = [];
    this.play(false);
  }

  hide() {
    this.element.hidden = true;
    this.play(false);
  }

  show(epochs, epoch, seen) {
    const at = Math.max(epochs.findLastIndex((one) => one <= epoch), 0);
    [this.epochs, this.at] = [epochs, at];
    this.element.hidden = epochs.length === 0 || epochs.at(-1) === 0;
    this.input.max = String(Math.max(epochs.length - 1, 0));
    this.input.value = String(at);
    this.input.disabled = this.button.disabled = epochs.length < 2;
    const here = seen.has(epochs[at]);
    this.input.setAttribute("aria-valuetext", `epoch ${epochs[at]}${here ? "" : ", not shown at this epoch"}`);
    this.output.textContent = `Epoch ${epochs[at]}`;
    const place = (n) => (epochs.length < 2 ? 0.5 : n / (epochs.length - 1));
    const every = Math.ceil(epochs.length / 16);
    this.ticks.replaceChildren(...epochs.map((one, n) => h("span", { class: seen.has(one) ? "tick" : "tick none", style: { "--at": place(n) } },
      (n % every === 0 || n === epochs.length - 1) && h("span", {}, String(one)))));
  }

  to(n) {
    if (n >= 0 && n < this.epochs.length) this.move(this.epochs[n]);
  }

  step(by) {
    this.to(this.at + by);
  }

  toggle() {
    this.play(!this.playing);
  }

  play(on) {
    clearInterval(this.timer);
    this.playing = on;
    this.button.textContent = on ? "❚❚" : "▶";
    this.button.setAttribute("aria-label", on ? "Pause" : "Play the epochs");
    if (!on) return;
    if (this.at === this.epochs.length - 1) this.to(0);
    this.timer = setInterval(() => (this.at >= this.epochs.length - 1 ? this.play(false) : this.step(1)), PAUSE);
  }
}
