import { render } from "preact";
import { App } from "./app";
import { followAddress } from "./route";

followAddress();
const root = document.getElementById("app");
if (root) {
  root.textContent = "";
  render(<App />, root);
}
