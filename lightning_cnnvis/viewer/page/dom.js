// Elements of the page. What is shown of names is always text, never markup.

// An element with attributes, and children that are elements, text or nothing.
export function h(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (value === undefined || value === null || value === false) continue;
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (name === "style") for (const [key, one] of Object.entries(value)) element.style.setProperty(key, one);
    else element.setAttribute(name, value === true ? "" : String(value));
  }
  element.append(...children.flat(Infinity).filter((child) => child !== undefined && child !== null && child !== false));
  return element;
}

// A name of the user's: it may be written in any direction.
export const named = (text) => h("bdi", {}, text);

export function number(value) {
  if (typeof value !== "number") return "";
  return Math.abs(value) >= 1e5 || (value !== 0 && Math.abs(value) < 1e-3) ? value.toExponential(1) : String(Number(value.toPrecision(3)));
}

// A part of a sprite sheet as an element that keeps its shape at any size.
// `cell` picks one of the equal cells that a picture is divided into.
export function sprite(sheets, picture, name, cell = { rows: 1, columns: 1, row: 0, column: 0 }) {
  const [sheet, x, y, width, height] = picture;
  const { url, size } = sheets[sheet];
  const w = width / cell.columns, h_ = height / cell.rows;
  const part = (whole, size_, start) => (whole - size_ ? `${(100 * start) / (whole - size_)}%` : "0%");
  return h("i", {
    class: "sprite", role: "img", "aria-label": name,
    style: {
      "background-image": `url("${url}")`,
      "background-size": `${(100 * size[0]) / w}% ${(100 * size[1]) / h_}%`,
      "background-position": `${part(size[0], w, x + cell.column * w)} ${part(size[1], h_, y + cell.row * h_)}`,
      "aspect-ratio": `${w} / ${h_}`,
    },
  });
}

// Scrolls a row sideways to what is current in it, and nothing else.
export function toSee(row) {
  const current = row.querySelector("[aria-current]");
  if (!current) return;
  const box = current.getBoundingClientRect(), frame = row.getBoundingClientRect();
  if (box.left < frame.left || box.right > frame.right) row.scrollLeft += box.left - frame.left - (frame.width - box.width) / 2;
}
