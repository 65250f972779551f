// Compares dist/, as built into the folder that is the first argument, with the committed one. Of
// compressed files the contents are compared, because zlib differs between versions of Node.
import { existsSync, readdirSync, readFileSync } from "node:fs";
import { gunzipSync } from "node:zlib";

const committed = new URL("../dist/", import.meta.url);
const built = new URL(`file://${process.argv[2]}/`);
const files = (folder) =>
  readdirSync(folder, { recursive: true, withFileTypes: true })
    .filter((entry) => entry.isFile())
    .map((entry) => `${entry.parentPath}/${entry.name}`.slice(folder.pathname.length))
    .sort();
const content = (folder, name) => {
  const bytes = readFileSync(new URL(name, folder));
  return name.endsWith(".gz") ? gunzipSync(bytes) : bytes;
};
const names = new Set([...files(committed), ...files(built)]);
const differs = (name) =>
  !existsSync(new URL(name, committed)) ||
  !existsSync(new URL(name, built)) ||
  !content(committed, name).equals(content(built, name));
const wrong = [...names].filter(differs);
if (wrong.length > 0) {
  process.stderr.write(`web/dist is not what web/src builds: ${wrong.join(", ")}; run make web\n`);
  process.exit(1);
}
process.stdout.write(`web/dist is up to date (${names.size} files)\n`);
