/**
 * node web/cli.mjs log_prob MODEL.safetensors IMAGES.json  prints log p of each image in nats, [N]
 * node web/cli.mjs decode MODEL.safetensors FILE.prnn  prints {"sizes": [N, 2] of [H, W], "values"
 *   of all images one after the other, "classes": [N]}
 *
 * IMAGES.json is {"images": [N, H, W, C] levels, "classes": [N] numbers}, classes if the model has
 * them. What is damaged or does not fit is one line on stderr, with status 1.
 */
import { readFileSync, statSync } from "node:fs";
import { runInThisContext } from "node:vm";

for (const name of ["model.js", "images.js", "codec.js"]) // A page of file: may have no modules.
  runInThisContext(readFileSync(new URL(name, import.meta.url), "utf8"));
const fits = (x, [n, ...rest], limit) => n === undefined
  ? Number.isInteger(x) && x >= 0 && x < limit
  : Array.isArray(x) && x.length === n && x.every((y) => fits(y, rest, limit));
const commands = {
  log_prob(model, bytes) {
    const { shape, levels, config: { num_classes: n } } = model;
    const { images, classes = [] } = JSON.parse(bytes), count = images?.length;
    if (!fits(images, [count, ...shape], levels) || !fits(classes, [n ? count : 0], n))
      throw new Error(`give images [N, ${shape}] of ${levels} levels, and a class of each, if any`);
    return images.map((image, i) =>
      logProb(model, image.flat(2), classes[i]).reduce((a, b) => a + b));
  },
  decode(model, bytes) {
    let last;
    for (last of decode(model, bytes));
    const values = last.images.flatMap((image) => [...image]);
    return { sizes: last.sizes, values, classes: last.classes };
  },
};
try {
  const [command, path, file] = process.argv.slice(2);
  if (!file || !Object.hasOwn(commands, command))
    throw new Error("usage: cli.mjs log_prob|decode MODEL.safetensors FILE");
  for (const name of [path, file])
    if (!statSync(name).isFile()) throw new Error(`${name} is no file`); // A pipe may never end.
  const model = await readModel(Uint8Array.from(readFileSync(path)).buffer);
  console.log(JSON.stringify(commands[command](model, readFileSync(file))));
} catch ({ message }) {
  console.error(message.split("\n")[0]);
  process.exitCode = 1;
}
