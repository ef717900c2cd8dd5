/**
 * Models by `pixel-rnn-jax export`: reads their files as docs/weights.md describes them, and computes their networks
 * pixel by pixel, in 64-bit floats. A lane is an image that is decided beside others.
 */

/** Reads a model from an ArrayBuffer. */
async function readModel(buffer) {
  const kinds = { F32: Float32Array, F64: Float64Array }, arrays = {};
  let description;
  try {
    const start = 8 + Number(new DataView(buffer).getBigUint64(0, true));
    const { __metadata__, ...header } = JSON.parse(new TextDecoder().decode(new Uint8Array(buffer, 8, start - 8)));
    const text = __metadata__.pixel_rnn_jax; // The digest is of its fields as they are written, in order.
    const fields = text.match(/"\w+": ("(?:[^"\\]|\\.)*"|\[(?:"(?:[^"\\]|\\.)*"|[^\]"])*\]|[^\s,{}]+)/g).sort();
    const sorted = (group) => fields.filter((field) => field.split('"')[1] in group).join(", ");
    description = JSON.parse(text);
    const digested = [`{"config": {${sorted(description.config)}}, "images": {${sorted(description.images)}}}`];
    for (const name of Object.keys(header).sort()) {
      const { dtype, shape, data_offsets: [from, to] } = header[name], bytes = buffer.slice(start + from, start + to);
      arrays[name] = Float64Array.from(new kinds[dtype](bytes));
      digested.push(`${name} float${dtype.slice(1)} [${shape.join(", ")}]\n`, bytes);
    }
    const all = await new Blob(digested).arrayBuffer(), hash = await globalThis.crypto?.subtle?.digest("SHA-256", all);
    const hex = hash && Array.from(new Uint8Array(hash), (byte) => byte.toString(16).padStart(2, "0")).join("");
    if (hash && hex !== description.sha256) throw new Error("another digest"); // Pages from http: have no hash.
  } catch { throw new Error("the file of the model is damaged, or `pixel-rnn-jax export` did not write it"); }
  const { image_shape: shape, levels, class_names: names } = description.images, size = shape.reduce((a, b) => a * b);
  const config = { head: "relu_1x1", input: "scalar", output: "softmax", residual: true, skip: true, scales: [],
    total: 0, condition_vector: 0, condition_map: 0, ...description.config };
  const read = { architecture: /^(pixel_cnn|row_lstm|diagonal_bilstm|linear_rnn)$/, scales: /^$/, total: /^0$/,
    condition_vector: /^0$/, condition_map: /^0$/, head: /^relu_1x1$/, input: /^scalar$/, output: /^softmax$/ };
  for (const [name, values] of Object.entries(read))
    if (!values.test(config[name])) throw new Error(`a model of ${name}=${config[name]} is not read here`);
  const array = (name) => arrays[`scale_0/${name}`] ?? [];
  const sizes = [array("first/bias").length, array("logits/bias").length];
  if (sizes.join() !== [2 * config.features, shape[2] * (levels === 2 ? 1 : levels)].join())
    throw new Error("the arrays of the model are not of its config");
  return { config, shape, levels, names, size, array, kernels: {} };
}

/** Returns a model's network for one lane. It gives the logits of a value, takes the value, and goes on to the next. */
function laneOf({ config, levels, shape: [, width, channels], size, array, kernels }, label) {
  const { architecture, features: h, kernel: k, first_kernel: side, residual, skip } = config, half = k >> 1;
  if (config.num_classes ? !(label < config.num_classes) : label !== undefined) throw new Error("no such class");
  // Functions of row and column that compute a pixel, or what follows in a complete row, from right to left; all maps.
  const steps = [], late = [], maps = [], { tanh } = Math;
  function rows(features, reach = half) { // Of a map the latest rows are kept; above and beside the image are zeros.
    const columns = width + 2 * reach, map = { features, data: new Float64Array((reach + 1) * columns * features) };
    const from = (row, column) => (((row + reach + 1) % (reach + 1)) * columns + column + reach) * features;
    map.at = (row, column, count = 1) => map.data.subarray(from(row, column), from(row, column + count));
    return maps.push(map), map;
  }
  function taps(map, height, width, own = true) { // A source is [map, rows down, columns right, number of columns].
    const left = -(width >> 1), above = Array.from({ length: height >> 1 }, (_, i) => i - (height >> 1));
    return [...above.map((down) => [map, down, left, width]), [map, 0, left, own - left]];
  }
  /** Arrays times all that the sources see. The mask is for the last column of the first map, the pixel itself. */
  function product(name, sources, { parts = 1, open = 0, relu, more = [], term, order = steps, ...own } = {}) {
    const names = [own.kernel ?? `${name}/kernel`, ...more], bias = own.bias ?? array(`${name}/bias`), n = bias.length;
    const count = () => sources.reduce((sum, [map, , , columns]) => sum + map.features * columns, 0), active = count();
    if (term && label !== undefined) names.push(`${term}/kernel`), sources.push([given, 0, 0, 1]);
    const inputs = count(), seen = new Float64Array(4 * Math.ceil(inputs / 4)), out = rows(n);
    const kernel = (kernels[name] ??= masked(new Float64Array(seen.length * n), 0));
    function masked(all, size) {
      for (const part of names) all.set(array(part), size), (size += array(part).length);
      if (size !== inputs * n) throw new Error(`the model's ${name} has not the size that its config says`);
      const { features } = sources[0][0], last = array(names[0]).length - features * n, strict = name === "first";
      const group = (i, size) => Math.floor(((i % size) * channels) / size);
      for (let i = 0; i < (channels > 1 ? features : 0); i++)
        for (let o = (open * n) / parts; o < n; o++)
          if (group(i, features) + strict > group(o, n / parts)) all[last + i * n + o] = 0;
      return all;
    }
    order.push((row, column) => {
      let at = 0;
      for (const [map, down, right, columns] of sources) {
        const x = map.at(row + down, column + right, columns);
        seen.set(x, at), (at += x.length);
      }
      for (let i = 0; relu && i < active; i++) seen[i] = Math.max(seen[i], 0);
      const y = out.at(row, column);
      y.set(bias);
      for (let i = 0; i < inputs; i += 4) {
        const a = seen[i], b = seen[i + 1], c = seen[i + 2], d = seen[i + 3];
        for (let o = 0, p = i * n; o < n; o++, p++)
          y[o] += a * kernel[p] + b * kernel[p + n] + c * kernel[p + 2 * n] + d * kernel[p + 3 * n];
      }
    });
    return out;
  }
  /** Calls `run` for n features with pixels of maps, [map, rows down, columns right]; the first is the result. */
  function local(n, pixels, run, order = steps) {
    order.push((row, column) => {
      const views = pixels.map(([map, down = 0, right = 0]) => map.at(row + down, column + right));
      for (let f = 0; f < n; f++) run(f, ...views);
    });
    return pixels[0][0];
  }
  /** The h of an LSTM, whose c comes from the pixel (down, right); both are at `starts` in the beginning. */
  function lstm(name, sources, [down, right], starts, order) {
    const y = rows(h), c = rows(h), sigmoid = (x) => 1 / (1 + Math.exp(-x));
    for (const at of starts) y.at(...at).set(array(`${name}/h0`)), c.at(...at).set(array(`${name}/c0`));
    const options = { parts: 4, more: [`${name}/state_to_state`], term: `${name}/condition_to_state`, order };
    const gates = product(`${name}/input_to_state`, sources(y), options);
    return local(h, [[y], [c], [c, down, right], [gates]], (f, y, c, before, g) => {
      c[f] = sigmoid(g[h + f]) * before[f] + sigmoid(g[2 * h + f]) * tanh(g[3 * h + f]);
      y[f] = sigmoid(g[f]) * tanh(c[f]);
    }, order);
  }
  const layers = {
    pixel_cnn(name, x) {
      const reduced = product(`${name}/reduce`, [[x, 0, 0, 1]], { relu: true });
      return product(`${name}/convolve`, taps(reduced, k, k), { relu: true, term: `${name}/condition_to_map` });
    },
    row_lstm(name, x) {
      const starts = Array.from({ length: width }, (_, column) => [-1, column]);
      return lstm(`${name}/lstm`, (y) => [...taps(x, 1, k), [y, -1, -half, k]], [-1, 0], starts, steps);
    },
    diagonal_bilstm(name, x) {
      const starts = Array.from({ length: half + 1 }, (_, row) => [[row, -1], [row, width]]).flat();
      const [left, right] = [["left", -1, steps], ["right", 1, late]].map(([side, beside, order]) => lstm(
        `${name}/${side}`, (y) => [[x, 0, 0, 1], [y, 0, beside, 1], [y, -1, 0, 1]], [0, beside], starts, order));
      return local(h, [[rows(h)], [left], [right, -1]], (f, y, l, r) => (y[f] = l[f] + r[f]));
    },
    linear_rnn(name, x) {
      const right = rows(h), left = rows(h), down = rows(2 * h), term = `${name}/condition_to_gates`;
      const gates = product(`${name}/gates`, [[x, 0, 0, 1]], { parts: 8, open: 6, term });
      const own = { kernel: `${name}/seen_to_gates`, bias: new Float64Array(2 * h), open: 1 };
      const seen = product(own.kernel, [[down, -1, 0, 1], [right, 0, -1, 1]], own);
      const mix = (gate, before, content) => before + ((1 - tanh(gate)) / 2) * (content - before);
      local(h, [[right], [right, 0, -1], [gates]], (f, r, left, g) => (r[f] = mix(g[f], left[f], tanh(g[4 * h + f]))));
      local(h, [[left], [left, 0, 1], [right], [down], [down, -1], [gates]], (f, l, before, r, d, above, g) => {
        l[f] = mix(g[h + f], before[f], tanh(g[5 * h + f]));
        d[f] = mix(g[2 * h + f], above[f], r[f]);
        d[h + f] = mix(g[3 * h + f], above[h + f], l[f]);
      }, late);
      return local(h, [[rows(h)], [gates], [seen]], (f, y, g, s) =>
        (y[f] = ((1 + tanh(g[6 * h + f] + s[f])) / 2) * tanh(g[7 * h + f] + s[h + f])));
    },
  };
  const given = rows(h), inputs = rows(channels, side >> 1), image = new Int32Array(size);
  if (label !== undefined) given.data = given.data.map((_, i) => array("embed/embedding")[label * h + (i % h)]);
  let x = product("first", taps(inputs, side, side, channels > 1)), skips = rows(2 * h), at = 0, row, column, channel;
  for (let i = 0; i < config.layers; i++) {
    const y = layers[architecture](`body_${i}`, x), options = { parts: 1 + skip, relu: architecture === "pixel_cnn" };
    const wide = product(`residual_${i}/expand`, [[y, 0, 0, 1]], options);
    skips = local(2 * h, [[rows(2 * h)], [skips], [wide]], (f, y, s, w) => (y[f] = s[f] + (skip && w[2 * h + f])));
    x = local(2 * h, [[rows(2 * h)], [x], [wide]], (f, y, x, w) => (y[f] = w[f] + (residual && x[f])));
  }
  x = local(2 * h, [[rows(2 * h)], [x], [skips]], (f, y, x, s) => (y[f] = x[f] + s[f]));
  for (const name of ["head_0", "head_1", "logits"]) x = product(name, [[x, 0, 0, 1]], { relu: true });
  function logits() {
    [row, column, channel] = [Math.floor(at / channels / width), Math.floor(at / channels) % width, at % channels];
    for (let c = width; row && !column && !channel && c--; ) for (const run of late) run(row - 1, c);
    for (const run of steps) run(row, column);
    const n = x.features / channels, y = x.at(row, column).subarray(channel * n, (channel + 1) * n);
    return levels === 2 ? [0, y[0]] : Array.from(y);
  }
  function put(value) { image[at++] = value; inputs.at(row, column)[channel] = (2 * value) / (levels - 1) - 1; }
  return { image, maps, logits, put };
}

/** Decides all values of some lanes: `choose` gives those at a place, from their logits. Yields after each pixel. */
function* decide(lanes, { size, shape }, choose) {
  for (let at = 0; at < size; at++) {
    const values = choose(lanes.map((lane) => lane.logits()), at);
    lanes.forEach((lane, i) => lane.put(values[i]));
    if ((at + 1) % shape[2] === 0) yield { images: lanes.map((lane) => lane.image), decided: at + 1 };
  }
}

/** The logarithm of a sum of exponentials. */
function logSum(logs) {
  const top = logs.reduce((a, b) => Math.max(a, b));
  return top + Math.log(logs.reduce((sum, log) => sum + Math.exp(log - top), 0));
}

/** Returns the logarithm of the probability of each value of an image. */
function logProb(model, image, label) {
  const choose = ([logits], at) => [((logs[at] = logits[image[at]] - logSum(logits)), image[at])], logs = [];
  for (const _ of decide([laneOf(model, label)], model, choose));
  return logs;
}

/**
 * Draws images side by side, given the known values of one, by sequential Monte Carlo as docs/generation.md says.
 * Yields after each pixel the images, the number of decided values, log p(known), and the smallest sample size.
 */
function* complete(model, image, known, count, label, temperature = 1) {
  const lanes = Array.from({ length: count }, () => laneOf(model, label)), logs = new Float64Array(count);
  let evidence = 0, smallest = count;
  const choose = (given, at) => given.map((logits, lane) => {
    if (known[at]) return (logs[lane] += logits[image[at]] - logSum(logits)), image[at];
    const heat = Math.max(temperature, 1e-300), top = logits.reduce((a, b) => Math.max(a, b));
    const weights = logits.map((x) => Math.exp((x - top) / heat));
    let place = Math.random() * weights.reduce((a, b) => a + b);
    return Math.max(0, weights.findIndex((weight) => (place -= weight) < 0));
  });
  for (const state of decide(lanes, model, choose)) {
    const sum = logSum(logs), size = Math.exp(2 * sum - logSum(logs.map((log) => 2 * log)));
    smallest = Math.min(smallest, size);
    if (size < count / 2 || state.decided === model.size) { // Systematic resampling.
      const old = lanes.map(({ maps, image }) => [image.slice(), ...maps.map((map) => map.data)]);
      let offset = Math.random(), from = 0, upTo = Math.exp(logs[0] - sum);
      lanes.forEach(({ maps, image }, to) => {
        while ((to + offset) / count > upTo && from < count - 1) upTo += Math.exp(logs[++from] - sum);
        image.set(old[from][0]);
        if (from !== to) maps.forEach((map, i) => (map.data = old[from][i + 1].slice()));
      });
      evidence += sum - Math.log(count);
      logs.fill(0);
    }
    yield { ...state, evidence, smallest };
  }
}

if (typeof module === "object") module.exports = { readModel, laneOf, decide, logProb, complete }; // For Node.
