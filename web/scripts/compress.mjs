// Writes a gzip copy beside each file of dist/assets, and removes what Vite left from earlier
// builds. gzip, not Brotli: browsers accept Brotli over https only.
import { readdirSync, readFileSync, writeFileSync } from "node:fs";
import { gzipSync } from "node:zlib";

const folder = new URL("../dist/assets/", import.meta.url);
let total = 0;
for (const name of readdirSync(folder).sort()) {
  const packed = gzipSync(readFileSync(new URL(name, folder)), { level: 9 });
  writeFileSync(new URL(`${name}.gz`, folder), packed);
  total += packed.length;
}
process.stdout.write(`compressed: ${(total / 1024).toFixed(1)} KiB\n`);
