// The tab of TensorBoard: it imports this module into an empty frame and calls render().
import { start } from "./app.js";
import { h } from "./dom.js";
import { TensorBoardSource } from "./source.js";

export async function render() {
  const styles = ["uplot.css", "style.css"].map((file) => new URL(file, import.meta.url).href);
  document.documentElement.lang = "en";
  document.title = "Convnet";
  document.head.append(
    h("meta", { name: "viewport", content: "width=device-width, initial-scale=1" }),
    h("meta", { name: "color-scheme", content: "light dark" }),
    ...styles.map((href) => h("link", { rel: "stylesheet", href })),
  );
  followTheme();
  // TensorBoard's frame has a base address, against which "#" would be resolved: links go by script
  await start(document.body, new TensorBoardSource(), { page: new URL("standalone.html", import.meta.url).href });
}

// TensorBoard has a switch of its own for light and dark.
function followTheme() {
  if (window.parent === window) return;
  const theirs = window.parent.document.body;
  const take = () => {
    document.documentElement.style.colorScheme = theirs.classList.contains("dark-mode") ? "dark" : "light";
    window.dispatchEvent(new Event("cnnvis-theme"));
  };
  take();
  new MutationObserver(take).observe(theirs, { attributeFilter: ["class"] });
}
