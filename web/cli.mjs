/**
 * node web/cli.mjs log_prob MODEL.safetensors IMAGES.json  prints log p of each image in nats, [N]
 * node web/cli.mjs decode MODEL.safetensors FILE.prnn      prints {"shape": [N, H, W, C], "values", "classes": [N]}
 *
 * IMAGES.json is {"images": [N, H, W, C] levels, "classes": [N] numbers}; classes are there if the model has them.
 * What is damaged or does not fit is one line on stderr, with status 1.
 */
import { readFileSync } from "node:fs";
import { decode } from "./codec.js";
import { logProb, readModel } from "./model.js";

const fits = (x, [n, ...rest], limit) => n === undefined ? Number.isInteger(x) && x >= 0 && x < limit
  : Array.isArray(x) && x.length === n && x.every((y) => fits(y, rest, limit));
const commands = {
  log_prob(model, bytes) {
    const { shape, levels, config: { num_classes: n } } = model, { images, classes = [] } = JSON.parse(bytes);
    if (!fits(images, [images?.length, ...shape], levels) || !fits(classes, [n ? images.length : 0], n))
      throw new Error(`needed are images [N, ${shape.join(", ")}] of ${levels} levels, and classes if there are any`);
    return images.map((image, i) => logProb(model, image.flat(2), classes[i]).reduce((a, b) => a + b));
  },
  decode(model, bytes) {
    for (var last of decode(model, Uint8Array.from(bytes)));
    const { images, classes } = last;
    return { shape: [images.length, ...model.shape], values: images.flatMap((image) => [...image]), classes };
  },
};
try {
  const [command, path, file] = process.argv.slice(2);
  if (!file || !commands[command]) throw new Error("usage: cli.mjs log_prob|decode MODEL.safetensors FILE");
  const model = await readModel(Uint8Array.from(readFileSync(path)).buffer);
  console.log(JSON.stringify(commands[command](model, readFileSync(file))));
} catch ({ message }) { console.error(message.split("\n")[0]); process.exitCode = 1; }
