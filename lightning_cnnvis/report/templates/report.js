"use strict";

// The pictures lie in the page as JSON, a list a section, and are taken out when they come into view.
const stores = new Map();
function picture(element) {
  const { store, n } = element.dataset;
  if (!stores.has(store)) stores.set(store, JSON.parse(document.getElementById(store).textContent));
  return stores.get(store)[Number(n)];
}
function reveal(element) {
  if (element instanceof HTMLImageElement) element.src = picture(element);
  else element.style.setProperty("--sprite", `url("${picture(element)}")`);
}
const approaching = new IntersectionObserver((entries) => {
  for (const { isIntersecting, target } of entries) {
    if (!isIntersecting) continue;
    approaching.unobserve(target);
    reveal(target);
  }
}, { rootMargin: "600px" });
for (const element of document.querySelectorAll(".lazy")) approaching.observe(element);

// The sliders go together: an epoch is an epoch in every layer that has it.
const evolutions = [...document.querySelectorAll(".evolution")];
function showEpoch(evolution, column) {
  const epoch = JSON.parse(evolution.dataset.epochs)[column];
  const input = evolution.querySelector("input");
  input.value = column;
  input.setAttribute("aria-valuetext", `epoch ${epoch}`);
  evolution.querySelector("output").textContent = epoch;
  for (const track of evolution.querySelectorAll(".track")) {
    track.style.setProperty("--column", column);
    track.classList.toggle("changed", JSON.parse(track.dataset.changed)[column]);
    const similarity = JSON.parse(track.dataset.similarities)[column];
    track.querySelector(".similarity").textContent = similarity === null ? "" : similarity.toFixed(2);
  }
  return epoch;
}
for (const evolution of evolutions) {
  const input = evolution.querySelector("input");
  showEpoch(evolution, Number(input.value));
  input.addEventListener("input", () => {
    const epoch = showEpoch(evolution, Number(input.value));
    for (const other of evolutions) {
      const column = JSON.parse(other.dataset.epochs).indexOf(epoch);
      if (other !== evolution && column >= 0) showEpoch(other, column);
    }
  });
}

// The top activations of a feature map.
const dialog = document.getElementById("top");
let shown = null;
function open(feature) {
  shown = feature;
  document.getElementById("top-title").textContent = `${feature.dataset.layer}, map ${feature.dataset.channel}`;
  const cells = document.getElementById("top-cells");
  cells.style.cssText = feature.style.cssText;
  cells.style.setProperty("--sprite", `url("${picture(feature)}")`);
  cells.replaceChildren(...JSON.parse(feature.dataset.activations).map((activation, column) => {
    const figure = document.createElement("figure");
    figure.style.setProperty("--column", column);
    for (const [row, name] of ["projection", "image patch"].entries()) {
      const sprite = document.createElement("i");
      sprite.className = "sprite";
      sprite.style.setProperty("--row", row);
      sprite.setAttribute("role", "img");
      sprite.setAttribute("aria-label", `${name} ${column + 1}`);
      figure.append(sprite);
    }
    const caption = document.createElement("figcaption");
    caption.textContent = activation;
    figure.append(caption);
    return figure;
  }));
  if (!dialog.open) dialog.showModal();
}
function neighbour(feature, step) {
  const all = [...feature.parentElement.querySelectorAll(".feature:not(:disabled)")];
  return all[all.indexOf(feature) + step];
}
function turn(step) {
  const next = neighbour(shown, step);
  if (next) open(next);
}
document.addEventListener("click", ({ target }) => {
  const feature = target.closest(".feature");
  if (feature) open(feature);
  else if (target === dialog) dialog.close();
});
document.getElementById("previous").addEventListener("click", () => turn(-1));
document.getElementById("next").addEventListener("click", () => turn(1));
document.getElementById("close").addEventListener("click", () => dialog.close());
dialog.addEventListener("close", () => shown.focus());
document.addEventListener("keydown", (event) => {
  const step = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
  if (!step) return;
  if (dialog.open) {
    turn(step);
  } else if (event.target.classList.contains("feature")) {
    neighbour(event.target, step)?.focus();
  } else {
    return;
  }
  event.preventDefault();
});

// Where one is in the network.
const strip = document.querySelector(".strip");
const links = new Map([...document.querySelectorAll(".strip a")].map((link) => [link.hash.slice(1), link]));
const reading = new IntersectionObserver((entries) => {
  for (const { isIntersecting, target } of entries) {
    const link = links.get(target.id);
    if (!link) continue;
    if (isIntersecting) {
      link.setAttribute("aria-current", "true");
      const left = link.offsetLeft + (link.offsetWidth - strip.clientWidth) / 2;
      strip.scrollTo({ left, behavior: "instant" });
    } else {
      link.removeAttribute("aria-current");
    }
  }
}, { rootMargin: "-45% 0px -50% 0px" });
for (const section of document.querySelectorAll(".layer")) reading.observe(section);
