// Compares the folder that is the first argument, a fresh build, with the committed dist. Of
// compressed files the contents are compared, because zlib differs between versions of Node.
import { existsSync, readdirSync, readFileSync } from "node:fs";
import { gunzipSync } from "node:zlib";

const built = process.argv[2];
const files = (folder) =>
  readdirSync(folder, { recursive: true, withFileTypes: true })
    .filter((entry) => entry.isFile())
    .map((entry) => `${entry.parentPath}/${entry.name}`.slice(folder.length + 1));
const content = (folder, name) => {
  const bytes = readFileSync(`${folder}/${name}`);
  return name.endsWith(".gz") ? gunzipSync(bytes) : bytes;
};
const names = new Set([...files("dist"), ...files(built)]);
const differs = (name) =>
  !existsSync(`dist/${name}`) ||
  !existsSync(`${built}/${name}`) ||
  !content("dist", name).equals(content(built, name));
const wrong = [...names].filter(differs).sort();
if (wrong.length > 0) {
  process.stderr.write(`web/dist is not what web/src builds: ${wrong.join(", ")}; run make web\n`);
  process.exit(1);
}
process.stdout.write(`web/dist is up to date (${names.size} files)\n`);
