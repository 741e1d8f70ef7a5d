// A report: the viewer with its data in the page.
import { start } from "./app.js";
import { EmbeddedSource } from "./source.js";

// The title is painted while the data are read; they make way for the viewer.
document.head.append(...document.querySelectorAll("body > script[type='application/json']"));
start(document.body, new EmbeddedSource(JSON.parse(document.getElementById("index").textContent)));
