// The viewer as a page of its own, so that its address can be sent to somebody.
import { render } from "./index.js";

render();
