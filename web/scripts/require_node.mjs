// Fails if this Node is too old for the tools of package.json.
const [major, minor] = process.versions.node.split(".").map(Number);
const enough = major > 22 || (major === 22 && minor >= 12) || (major === 20 && minor >= 19);
if (!enough) {
  process.stderr.write(`Node ${process.versions.node} is too old: use 20.19, or 22.12 or later\n`);
  process.exit(1);
}
