// Writes a gzip copy beside each file of assets/ in the folder that is the first argument (dist by
// default). gzip, not Brotli: browsers accept Brotli over https only.
import { readdirSync, readFileSync, writeFileSync } from "node:fs";
import { resolve } from "node:path";
import { gzipSync } from "node:zlib";

const folder = resolve(process.argv[2] ?? "dist", "assets");
let total = 0;
for (const name of readdirSync(folder).filter((n) => !n.endsWith(".gz"))) {
  const packed = gzipSync(readFileSync(`${folder}/${name}`), { level: 9 });
  writeFileSync(`${folder}/${name}.gz`, packed);
  total += packed.length;
}
process.stdout.write(`compressed: ${(total / 1024).toFixed(1)} KiB\n`);
