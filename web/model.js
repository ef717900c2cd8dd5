/**
 * Models by `pixel-rnn-jax export`: reads their files as docs/weights.md describes them, and computes their networks
 * pixel by pixel, in 64-bit floats. A lane is an image that is decided beside others.
 */

/** Returns a model's network for one lane. It gives the logits of a value, takes the value, and goes on to the next. */
function laneOf({ config, levels, shape: [, width, channels], size, array, kernels }, label) {
  const { architecture, features: h, kernel: k, first_kernel: side, residual, skip } = config, half = k >> 1;
  const steps = []; // What computes a pixel: functions of row and column, in order.
  const late = []; // What follows for the pixels of a complete row, from right to left.
  const maps = []; // What it remembers.

  function rows(features, reach = half) { // Of a map the latest rows are kept; above and beside the image are zeros.
    const columns = width + 2 * reach, map = { features, data: new Float64Array((reach + 1) * columns * features) };
    map.at = (row, column, count = 1) => {
      const from = (((row + reach + 1) % (reach + 1)) * columns + column + reach) * features;
      return map.data.subarray(from, from + count * features);
    };
    maps.push(map);
    return map;
  }

  function taps(map, height, width, own = true) { // A source is [map, rows down, columns right, number of columns].
    const left = -(width >> 1), above = Array.from({ length: height >> 1 }, (_, i) => i - (height >> 1));
    return [...above.map((down) => [map, down, left, width]), [map, 0, left, own - left]];
  }

  /** Arrays times all that the sources see. The mask is for the last column of the first map, the pixel itself. */
  function product(name, sources, { parts = 1, open = 0, strict = 0, relu, more = [], term, order = steps, ...own } = {}) {
    const names = [own.kernel ?? `${name}/kernel`, ...more], bias = own.bias ?? array(`${name}/bias`), n = bias.length;
    const classed = term && label !== undefined, out = rows(n);
    if (classed) names.push(`${term}/kernel`), sources.push([given, 0, 0, 1]); // Which has no ReLU.
    const inputs = sources.reduce((sum, [map, , , count]) => sum + map.features * count, 0);
    const seen = new Float64Array(4 * Math.ceil(inputs / 4)), kernel = (kernels[name] ??= masked());
    function masked() {
      const all = new Float64Array(seen.length * n), { features } = sources[0][0];
      if (names.reduce((at, part) => (all.set(array(part), at), at + array(part).length), 0) !== inputs * n)
        throw new Error(`${name} has a size that is not of the model's config`);
      const last = array(names[0]).length - features * n, group = (i, size) => Math.floor(((i % size) * channels) / size);
      for (let i = 0; i < (channels > 1 ? features : 0); i++)
        for (let o = (open * n) / parts; o < n; o++)
          if (group(i, features) + strict > group(o, n / parts)) all[last + i * n + o] = 0;
      return all;
    }
    order.push((row, column) => {
      let at = 0;
      for (const [map, down, right, count] of sources) {
        seen.set(map.at(row + down, column + right, count), at);
        at += map.features * count;
      }
      if (relu) for (let i = 0; i < inputs - (classed ? h : 0); i++) seen[i] = Math.max(seen[i], 0);
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
    const y = rows(h), c = rows(h), sigmoid = (x) => 1 / (1 + Math.exp(-x)), term = `${name}/condition_to_state`;
    for (const at of starts) y.at(...at).set(array(`${name}/h0`)), c.at(...at).set(array(`${name}/c0`));
    const options = { parts: 4, more: [`${name}/state_to_state`], term, order };
    const gates = product(`${name}/input_to_state`, sources(y), options);
    return local(h, [[y], [c], [c, down, right], [gates]], (f, y, c, before, g) => {
      c[f] = sigmoid(g[h + f]) * before[f] + sigmoid(g[2 * h + f]) * Math.tanh(g[3 * h + f]);
      y[f] = sigmoid(g[f]) * Math.tanh(c[f]);
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
      const [left, right] = [["left", -1, -1, steps], ["right", 1, width, late]].map(([side, beside, column, order]) => {
        const starts = Array.from({ length: half + 1 }, (_, row) => [row, column]);
        const sources = (y) => [[x, 0, 0, 1], [y, 0, beside, 1], [y, -1, 0, 1]];
        return lstm(`${name}/${side}`, sources, [0, beside], starts, order);
      });
      return local(h, [[rows(h)], [left], [right, -1]], (f, y, l, r) => (y[f] = l[f] + r[f]));
    },
    linear_rnn(name, x) {
      const [right, left, down] = [h, h, 2 * h].map((n) => rows(n)), { tanh } = Math;
      const options = { parts: 8, open: 6, term: `${name}/condition_to_gates` };
      const gates = product(`${name}/gates`, [[x, 0, 0, 1]], options);
      const own = { kernel: `${name}/seen_to_gates`, bias: new Float64Array(2 * h), open: 1 };
      const seen = product(own.kernel, [[down, -1, 0, 1], [right, 0, -1, 1]], own);
      const mix = (gate, before, content) => before + ((1 - tanh(gate)) / 2) * (content - before);
      local(h, [[right], [right, 0, -1], [gates]], (f, r, before, g) => {
        r[f] = mix(g[f], before[f], tanh(g[4 * h + f]));
      });
      local(h, [[left], [left, 0, 1], [right], [down], [down, -1], [gates]], (f, l, before, r, d, above, g) => {
        l[f] = mix(g[h + f], before[f], tanh(g[5 * h + f]));
        d[f] = mix(g[2 * h + f], above[f], r[f]);
        d[h + f] = mix(g[3 * h + f], above[h + f], l[f]);
      }, late);
      return local(h, [[rows(h)], [gates], [seen]], (f, y, g, s) => {
        y[f] = ((1 + tanh(g[6 * h + f] + s[f])) / 2) * tanh(g[7 * h + f] + s[h + f]);
      });
    },
  };

  const given = rows(h), inputs = rows(channels, side >> 1), image = new Int32Array(size);
  if (label !== undefined) given.data = given.data.map((_, i) => array("embed/embedding")[label * h + (i % h)]);
  let x = product("first", taps(inputs, side, side, channels > 1), { strict: 1 }), skips = rows(2 * h);
  for (let i = 0; i < config.layers; i++) {
    const y = layers[architecture](`body_${i}`, x), options = { parts: 1 + skip, relu: architecture === "pixel_cnn" };
    const wide = product(`residual_${i}/expand`, [[y, 0, 0, 1]], options);
    skips = local(2 * h, [[rows(2 * h)], [skips], [wide]], (f, y, s, w) => (y[f] = s[f] + (skip && w[2 * h + f])));
    x = local(2 * h, [[rows(2 * h)], [x], [wide]], (f, y, x, w) => (y[f] = w[f] + (residual && x[f])));
  }
  x = local(2 * h, [[rows(2 * h)], [x], [skips]], (f, y, x, s) => (y[f] = x[f] + s[f]));
  for (const name of ["head_0", "head_1", "logits"]) x = product(name, [[x, 0, 0, 1]], { relu: true });

  let at = 0, row, column, channel;
  return {
    image, maps,
    logits() {
      [row, column, channel] = [Math.floor(at / channels / width), Math.floor(at / channels) % width, at % channels];
      for (let c = width; row && !column && !channel && c--; ) for (const run of late) run(row - 1, c);
      for (const run of steps) run(row, column);
      const n = x.features / channels, y = x.at(row, column).subarray(channel * n, (channel + 1) * n);
      return levels === 2 ? [0, y[0]] : Array.from(y);
    },
    put(value) {
      image[at++] = value;
      inputs.at(row, column)[channel] = (2 * value) / (levels - 1) - 1;
    },
  };
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

class Model {
  static async read(buffer) {
    const parts = [], arrays = {}, kinds = { F32: ["float32", Float32Array], F64: ["float64", Float64Array] };
    let description;
    try {
      const size = Number(new DataView(buffer).getBigUint64(0, true));
      const { __metadata__, ...header } = JSON.parse(new TextDecoder().decode(new Uint8Array(buffer, 8, size)));
      const text = __metadata__.pixel_rnn_jax, { config, images } = (description = JSON.parse(text));
      // The digest is of the fields as they are written, in order: it tells 0.0 from 0.
      const fields = [...text.matchAll(/"(\w+)": ("(?:[^"\\]|\\.)*"|\[(?:"(?:[^"\\]|\\.)*"|[^\]"])*\]|[^\s,{}]+)/g)];
      const sorted = (group) => fields.filter(([, name]) => name in group).map(([pair]) => pair).sort().join(", ");
      parts.push(`{"config": {${sorted(config)}}, "images": {${sorted(images)}}}`);
      for (const name of Object.keys(header).sort()) {
        const { dtype, shape, data_offsets: [from, to] } = header[name], [word, Kind] = kinds[dtype];
        const bytes = buffer.slice(8 + size + from, 8 + size + to);
        parts.push(`${name} ${word} [${shape.join(", ")}]\n`, bytes);
        arrays[name] = Float64Array.from(new Kind(bytes));
      }
    } catch {
      throw new Error("this is no file of `pixel-rnn-jax export`");
    }
    if (globalThis.crypto?.subtle) { // Pages from http: have none.
      const digest = new Uint8Array(await crypto.subtle.digest("SHA-256", await new Blob(parts).arrayBuffer()));
      const text = Array.from(digest, (byte) => byte.toString(16).padStart(2, "0")).join("");
      if (text !== description.sha256) throw new Error("the file of the model is damaged");
    }
    return new Model(description, arrays);
  }

  constructor({ config: given, images: { image_shape: shape, levels, class_names: names } }, arrays) {
    const config = { head: "relu_1x1", input: "scalar", output: "softmax", residual: true, skip: true, ...given };
    const none = ["", "0", "undefined"], read = { scales: none, condition_vector: none, condition_map: none, total: none,
      architecture: ["pixel_cnn", "row_lstm", "diagonal_bilstm", "linear_rnn"], head: ["relu_1x1"], input: ["scalar"],
      output: ["softmax"] };
    for (const [name, values] of Object.entries(read))
      if (!values.includes(String(config[name]))) throw new Error(`a model of ${name}=${config[name]} is not read here`);
    const array = (name) => {
      if (arrays[`scale_0/${name}`]) return arrays[`scale_0/${name}`];
      throw new Error(`the model has no array ${name}`);
    };
    const size = shape.reduce((a, b) => a * b), outputs = shape[2] * (levels === 2 ? 1 : levels);
    if (array("first/bias").length !== 2 * config.features || array("logits/bias").length !== outputs)
      throw new Error("the arrays of the model are not of its config");
    Object.assign(this, { config, shape, levels, names, array, size, kernels: {} });
  }

  /** Returns the logarithm of the probability of each value of an image. */
  logProb(image, label) {
    const choose = ([logits], at) => [((logs[at] = logits[image[at]] - logSum(logits)), image[at])], logs = [];
    for (const _ of decide([laneOf(this, label)], this, choose));
    return logs;
  }

  /**
   * Draws images side by side, given the known values of one, by sequential Monte Carlo as docs/generation.md says. Yields
   * after each pixel the images, the number of decided values, log p(known), and the smallest effective sample size.
   */
  *complete(image, known, count, label, temperature = 1) {
    const lanes = Array.from({ length: count }, () => laneOf(this, label)), logs = new Float64Array(count);
    let evidence = 0, smallest = count;
    const choose = (given, at) => given.map((logits, lane) => {
      const top = logits.reduce((a, b) => Math.max(a, b)), heat = Math.max(temperature, 1e-300);
      if (known[at]) return (logs[lane] += logits[image[at]] - logSum(logits)), image[at];
      const weights = logits.map((x) => Math.exp((x - top) / heat));
      let place = Math.random() * weights.reduce((a, b) => a + b);
      return Math.max(0, weights.findIndex((weight) => (place -= weight) < 0));
    });
    for (const state of decide(lanes, this, choose)) {
      const sum = logSum(logs), size = Math.exp(2 * sum - logSum(logs.map((log) => 2 * log)));
      smallest = Math.min(smallest, size);
      if (size < count / 2 || state.decided === this.size) { // Systematic resampling.
        const old = lanes.map(({ maps, image }) => [image.slice(), maps.map((map) => map.data)]), offset = Math.random();
        let from = 0, upTo = Math.exp(logs[0] - sum);
        lanes.forEach(({ maps, image }, to) => {
          while ((to + offset) / count > upTo && from < count - 1) upTo += Math.exp(logs[++from] - sum);
          image.set(old[from][0]);
          if (from !== to) maps.forEach((map, i) => (map.data = old[from][1][i].slice()));
        });
        evidence += sum - Math.log(count);
        logs.fill(0);
      }
      yield { ...state, evidence, smallest };
    }
  }
}

if (typeof module === "object") module.exports = { Model, decide, laneOf }; // For Node; a page has them by name.
