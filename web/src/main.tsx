import { render } from "preact";
import { App } from "./app";
import { followAddress } from "./navigation";

followAddress();
const root = document.getElementById("app");
if (root) {
  root.textContent = "";
  render(<App />, root);
}
