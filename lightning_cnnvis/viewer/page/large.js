// A picture, large, pixel by pixel; and over it the same at another epoch or of another run, up to an edge that slides.
import { h, named, sprite } from "./dom.js";

// `pictures` are {name, sheets, picture}: the one that was opened, then those that it can be compared with.
export function enlarge(label, pictures) {
  const [shown, ...others] = pictures;
  const edge = (value) => both.style.setProperty("--edge", `${value}%`);
  const both = h("div", { class: "both" });
  const slider = h("input", { type: "range", min: 0, max: 100, value: 50, oninput: () => edge(slider.value) });
  const choice = h("select", { onchange: () => compare(others[Number(choice.value)]) }, others.map(({ name }, n) => h("option", { value: n }, name)));
  const compare = (other) => {
    both.replaceChildren(sprite(shown.sheets, shown.picture, `${label}, ${shown.name}`));
    if (!other) return;
    both.prepend(sprite(other.sheets, other.picture, `${label}, ${other.name}`));
    both.append(h("hr", { "aria-hidden": "true" }));
    edge(slider.value);
  };
  compare(others[0]);
  const dialog = h("dialog", { class: "large", "aria-label": label, onclose: () => dialog.remove(), onclick: ({ target }) => target === dialog && dialog.close() },
    h("header", {}, h("h2", {}, named(label), h("small", {}, shown.name)), h("button", { type: "button", class: "close", onclick: () => dialog.close() }, "Close")),
    both, others.length > 0 && h("label", {}, choice, slider, shown.name));
  slider.setAttribute("aria-label", "Edge between the two");
  choice.setAttribute("aria-label", "Compared with");
  document.body.append(dialog);
  dialog.showModal();
}
