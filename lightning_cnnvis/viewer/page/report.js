// A report: the viewer with its data in the page.
import { start } from "./app.js";
import { EmbeddedSource } from "./source.js";

start(document.body, new EmbeddedSource(JSON.parse(document.getElementById("index").textContent)));
