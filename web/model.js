/** Models of `pixel-rnn-jax export`, read and computed as docs/weights.md describes them. */

/** Returns the text of a model's description and its arrays; the digest is right. */
async function readArrays(buffer) {
  const start = 8 + Number(new DataView(buffer).getBigUint64(0, true)), arrays = {};
  const header = JSON.parse(new TextDecoder().decode(new Uint8Array(buffer, 8, start - 8)));
  const { __metadata__: { pixel_rnn_jax: text }, ...tensors } = header;
  const description = JSON.parse(text), string = /"(?:[^"\\]|\\.)*"/.source;
  // The digest is of the fields as they are written, 0.0 and not 0, in alphabetical order.
  const value = `${string}|\\[(?:${string}|[^\\]"])*\\]|[^\\s,{}]+`;
  const fields = text.match(RegExp(`"\\w+": (${value})`, "g")).sort();
  const [config, images] = [description.config, description.images].map((part) =>
    fields.filter((field) => field.split('"')[1] in part).join(", "));
  const digested = [`{"config": {${config}}, "images": {${images}}}`];
  for (const name of Object.keys(tensors).sort()) {
    const { dtype, shape, data_offsets: [from, to] } = tensors[name];
    const bytes = buffer.slice(start + from, start + to);
    arrays[name] = Float64Array.from(new { F32: Float32Array, F64: Float64Array }[dtype](bytes));
    digested.push(`${name} float${dtype.slice(1)} [${shape.join(", ")}]\n`, bytes);
  }
  const all = await new Blob(digested).arrayBuffer();
  const hash = await globalThis.crypto?.subtle?.digest("SHA-256", all); // None in pages of http:.
  const digest = hash && Array.from(new Uint8Array(hash), (x) => x.toString(16).padStart(2, "0"));
  if (hash && digest.join("") !== description.sha256) throw new Error("another digest");
  return { ...description, arrays };
}

/** Reads a model from an ArrayBuffer. */
async function readModel(buffer) {
  const { config: given, images, arrays, version } = await readArrays(buffer).catch(() => {
    throw new Error("the model's file is damaged, or `pixel-rnn-jax export` did not write it");
  });
  const config = { output: "softmax", mixtures: 10, ...given };
  const read = {
    architecture: ["pixel_cnn", "row_lstm", "diagonal_bilstm", "linear_rnn"],
    output: ["softmax", "discretized_logistic_mixture"], head: ["relu_1x1"], input: ["scalar"],
    scales: [""], total: ["0"], condition_vector: ["0"], condition_map: ["0"],
    residual: ["true"], skip: ["true"], dtype: ["float32", "float64"],
  };
  if (version !== 1) throw new Error(`a model of version=${version} is not read here`);
  for (const [name, values] of Object.entries(read))
    if (name in config && !values.includes(String(config[name])))
      throw new Error(`a model of ${name}=${config[name]} is not read here`);
  const { image_shape: shape, levels, class_names: names } = images;
  const { layers, features: h, head_features: head, kernel, first_kernel: first } = config;
  const [height, width, channels] = shape, size = height * width * channels;
  const within = (most, ...all) => all.every((x) => Number.isInteger(x) && x > 0 && x <= most);
  if (!within(2 ** 22, size, ...shape) || !within(2 ** 16, levels - 1, h, head, config.mixtures) ||
    !within(255, channels, kernel, first) || !within(100, layers) || kernel * first % 2 === 0)
    throw new Error("the model's sizes are impossible");
  const outputs = outputsOf(config, levels);
  const side = 2 ** Math.ceil(Math.log2(2 * Math.max(height, width))); // T: see `partsOf`.
  return sizedTo({ config, shape, side, levels, names, arrays, outputs }, [height, width]);
}

/** Returns the model for images of another height and width. */
function sizedTo(model, [height, width]) {
  const { layers, features, head_features: head, kernel } = model.config;
  const [, , channels] = model.shape; // Of a lane, so many numbers are remembered:
  if ((kernel + 1) * (width + kernel) * (20 * layers * features + head) > 2 ** 23)
    throw new Error("the model's sizes are impossible, or more than a page computes");
  return { ...model, shape: [height, width, channels], size: height * width * channels };
}

/** Returns the first index of each part of a side, and at last its length. */
function edgesOf(length, side) {
  const count = Math.ceil(length / side), larger = length % count;
  return Array.from({ length: count + 1 }, (_, i) =>
    i * Math.floor(length / count) + Math.min(i, larger));
}

/** Returns the places of the parts of pictures, by "height,width" of a part. */
function partsOf(sizes, side) {
  const parts = new Map();
  sizes.forEach((size, picture) => {
    const [rows, columns] = size.map((length) => edgesOf(length, side));
    for (let i = 1; i < rows.length; i++)
      for (let j = 1; j < columns.length; j++) {
        const [top, left] = [rows[i - 1], columns[j - 1]];
        const shape = `${rows[i] - top},${columns[j] - left}`;
        if (!parts.has(shape)) parts.set(shape, []);
        parts.get(shape).push({ picture, top, left });
      }
  });
  return parts;
}

/** Copies a part, or `back` from it, of an image of so many columns. */
function copyPart(part, { shape: [height, width, channels] }, image, columns, { top, left }, back) {
  for (let row = 0, length = width * channels; row < height; row++) {
    const start = ((top + row) * columns + left) * channels;
    if (back) part.set(image.subarray(start, start + length), row * length);
    else image.set(part.subarray(row * length, (row + 1) * length), start);
  }
}

/** Adds the inputs times a kernel, [inputs, sums]; the inputs are a multiple of four. */
function addProduct(sums, inputs, kernel) {
  const n = sums.length;
  for (let i = 0; i < inputs.length; i += 4) {
    const a = inputs[i], b = inputs[i + 1], c = inputs[i + 2], d = inputs[i + 3];
    for (let o = 0, p = i * n; o < n; o++, p++)
      sums[o] += a * kernel[p] + b * kernel[p + n] + c * kernel[p + 2 * n] + d * kernel[p + 3 * n];
  }
}

/** Returns the network of a model for images side by side, its lanes, with a label for each. */
function networkOf({ config, levels, shape: [, width, channels], size, arrays, outputs }, labels) {
  const { architecture, features: h, kernel: k, first_kernel: side } = config;
  const array = (name) => arrays[`scale_0/${name}`] ?? [], lanes = [...labels.keys()];
  const half = k >> 1, { tanh } = Math;
  // All that it remembers; functions of lane, row, column and channel that compute a value; and
  // functions that follow for the pixels of a complete row, from right to left.
  const maps = [], steps = [], afterRow = [];

  /** A map, whose latest rows are kept; above and beside the image are zeros. */
  function mapOf(features, reach = half) {
    const columns = width + 2 * reach, length = (reach + 1) * columns * features;
    const map = { features, data: labels.map(() => new Float64Array(length)) };
    map.view = (lane, row, column, count = 1) => {
      const offset = (((row + reach + 1) % (reach + 1)) * columns + column + reach) * features;
      return map.data[lane].subarray(offset, offset + count * features);
    };
    maps.push(map);
    return map;
  }

  /** What a masked kernel sees: [map, rows down, columns right, columns], the pixel itself last. */
  function taps(map, height, width, own = true) {
    const left = -(width >> 1), above = Array.from({ length: height >> 1 }, (_, i) => i);
    return [...above.map((i) => [map, i - (height >> 1), left, width]), [map, 0, left, own - left]];
  }

  /**
   * Kernels times all that the sources see. The last tap of kernels[0] is the pixel itself and is
   * masked. Channel c's outputs run at step c; the first `open` parts run at the last channel.
   */
  function maskedMatmul(name, n, sources, options = {}) {
    const { parts = 1, open = 0, mask = "B", relu, term, order = steps,
      kernels = [`${name}/kernel`], bias = array(`${name}/bias`) } = options;
    const all = Float64Array.from(kernels.flatMap((kernel) => [...array(kernel)]));
    const inputs = sources.reduce((sum, [map, , , count]) => sum + map.features * count, 0);
    if (all.length !== inputs * n || bias.length !== n)
      throw new Error(`the model's ${name} is not of the size that its config says`);
    const channelOf = (i, size) => Math.floor(((i % size) * channels) / size);
    const channel = (o) => (o < (open * n) / parts ? channels - 1 : channelOf(o, n / parts));
    const { features } = sources[0][0], pixel = array(kernels[0]).length / n - features;
    for (let i = 0; mask && channels > 1 && i < features; i++)
      for (let o = 0; o < n; o++)
        if (channelOf(i, features) + (mask === "A") > channel(o)) all[(pixel + i) * n + o] = 0;
    const out = mapOf(n), seen = new Float64Array(4 * Math.ceil(inputs / 4));
    const groups = Array.from({ length: order === afterRow ? 1 : channels }, (_, c) => {
      const chosen = [...Array(n).keys()].filter((o) => order === afterRow || channel(o) === c);
      const kernel = new Float64Array(seen.length * chosen.length);
      for (let i = 0, p = 0; i < inputs; i++) for (const o of chosen) kernel[p++] = all[i * n + o];
      const starts = labels.map((label) => Float64Array.from(chosen, (o) => {
        const given = term ? array("embed/embedding").slice(label * h, (label + 1) * h) : [];
        return given.reduce((sum, x, i) => sum + x * array(term)[i * n + o], bias[o]);
      }));
      return { chosen, kernel, starts, sums: new Float64Array(chosen.length) };
    });
    order.push((lane, row, column, c) => {
      const { chosen, kernel, starts, sums } = groups[c], y = out.view(lane, row, column);
      let offset = 0;
      for (const [map, down, right, count] of sources) {
        seen.set(map.view(lane, row + down, column + right, count), offset);
        offset += map.features * count;
      }
      for (let i = 0; relu && i < inputs; i++) seen[i] = Math.max(seen[i], 0);
      sums.set(starts[lane]);
      addProduct(sums, seen, kernel);
      for (let j = 0; j < sums.length; j++) y[chosen[j]] = sums[j];
    });
    return out;
  }

  /**
   * Calls `run` for each of n features of the value's channel, or of all, with pixels of maps,
   * [map, rows down, columns right]; the first is the result.
   */
  function pointwise(n, pixels, run, { order = steps, all = order === afterRow } = {}) {
    order.push((lane, row, column, channel) => {
      const views = pixels.map(([map, down = 0, right = 0]) =>
        map.view(lane, row + down, column + right));
      const [from, to] = [channel, channel + 1].map((c) => Math.ceil((c * n) / channels));
      for (let f = all ? 0 : from; f < (all ? n : to); f++) run(f, ...views);
    });
    return pixels[0][0];
  }

  /** The h of an LSTM, whose c comes from the pixel (down, right); both begin at `starts`. */
  function lstm(name, sourcesOf, [down, right], starts, order) {
    const [y, c] = ["h0", "c0"].map((state) => {
      const map = mapOf(h), start = array(`${name}/${state}`);
      for (const place of starts) for (const lane of lanes) map.view(lane, ...place).set(start);
      return map;
    });
    const kernels = [`${name}/input_to_state/kernel`, `${name}/state_to_state`];
    const term = classes && `${name}/condition_to_state/kernel`, options = { parts: 4, order };
    const gates = maskedMatmul(`${name}/input_to_state`, 4 * h, sourcesOf(y),
      { ...options, kernels, term });
    const sigmoid = (x) => 1 / (1 + Math.exp(-x));
    return pointwise(h, [[y], [c], [c, down, right], [gates]], (f, y, c, before, g) => {
      c[f] = sigmoid(g[h + f]) * before[f] + sigmoid(g[2 * h + f]) * tanh(g[3 * h + f]);
      y[f] = sigmoid(g[f]) * tanh(c[f]);
    }, { order });
  }

  const classes = config.num_classes > 0, layers = {
    pixel_cnn(name, x) {
      const reduced = maskedMatmul(`${name}/reduce`, h, [[x, 0, 0, 1]], { relu: true });
      const term = classes && `${name}/condition_to_map/kernel`;
      return maskedMatmul(`${name}/convolve`, h, taps(reduced, k, k), { relu: true, term });
    },
    row_lstm(name, x) {
      return lstm(`${name}/lstm`, (y) => [...taps(x, 1, k), [y, -1, -half, k]], [-1, 0],
        Array.from({ length: width }, (_, column) => [-1, column]), steps);
    },
    diagonal_bilstm(name, x) {
      const direction = (word, beside, start, order) => lstm(`${name}/${word}`,
        (y) => [[x, 0, 0, 1], [y, 0, beside, 1], [y, -1, 0, 1]], [0, beside],
        Array.from({ length: half + 1 }, (_, row) => [row, start]), order);
      const left = direction("left", -1, -1, steps), right = direction("right", 1, width, afterRow);
      return pointwise(h, [[mapOf(h)], [left], [right, -1]], (f, y, l, r) => (y[f] = l[f] + r[f]));
    },
    linear_rnn(name, x) {
      const right = mapOf(h), left = mapOf(h), down = mapOf(2 * h);
      const term = classes && `${name}/condition_to_gates/kernel`;
      const gates = maskedMatmul(`${name}/gates`, 8 * h, [[x, 0, 0, 1]],
        { parts: 8, open: 6, term });
      const seen = maskedMatmul(name, 2 * h, [[down, -1, 0, 1], [right, 0, -1, 1]],
        { parts: 2, mask: "", kernels: [`${name}/seen_to_gates`], bias: Array(2 * h).fill(0) });
      const mix = (gate, before, content) => before + ((1 - tanh(gate)) / 2) * (content - before);
      pointwise(h, [[right], [right, 0, -1], [gates]], (f, right, before, g) =>
        (right[f] = mix(g[f], before[f], tanh(g[4 * h + f]))), { all: true });
      const complete = [[left], [left, 0, 1], [right], [down], [down, -1], [gates]];
      pointwise(h, complete, (f, left, before, right, down, above, g) => {
        left[f] = mix(g[h + f], before[f], tanh(g[5 * h + f]));
        down[f] = mix(g[2 * h + f], above[f], right[f]);
        down[h + f] = mix(g[3 * h + f], above[h + f], left[f]);
      }, { order: afterRow });
      return pointwise(h, [[mapOf(h)], [gates], [seen]], (f, y, g, s) =>
        (y[f] = ((1 + tanh(g[6 * h + f] + s[f])) / 2) * tanh(g[7 * h + f] + s[h + f])));
    },
  };

  const inputs = mapOf(channels, Math.max(side >> 1, 2)), relu = true;
  const sum = (x, y, from = 0) =>
    pointwise(2 * h, [[mapOf(2 * h)], [x], [y]], (f, sum, x, y) => (sum[f] = x[f] + y[from + f]));
  let x = maskedMatmul("first", 2 * h, taps(inputs, side, side, channels > 1), { mask: "A" });
  let skips = mapOf(2 * h), images = labels.map(() => new Int32Array(size));
  for (let i = 0; i < config.layers; i++) {
    const y = layers[architecture](`body_${i}`, x), relu = architecture === "pixel_cnn";
    const wide = maskedMatmul(`residual_${i}/expand`, 4 * h, [[y, 0, 0, 1]], { parts: 2, relu });
    [x, skips] = [sum(x, wide), sum(skips, wide, 2 * h)];
  }
  x = maskedMatmul("head_0", config.head_features, [[sum(x, skips), 0, 0, 1]], { relu });
  x = maskedMatmul("head_1", config.head_features, [[x, 0, 0, 1]], { relu });
  const q = outputs.count, m = config.mixtures;
  x = maskedMatmul("logits", channels * q, [[x, 0, 0, 1]], { relu });
  if (config.output !== "softmax") { // Linear predictions move the means.
    const near = maskedMatmul("predict", channels * m, taps(inputs, 5, 5, channels > 1), { mask: "A" });
    x = pointwise(channels * q, [[mapOf(channels * q)], [x], [near]], (f, moved, x, near) => {
      const j = (f % q) - m; // The component whose mean this is, from 0 to m - 1.
      moved[f] = x[f] + (j >= 0 && j < m ? near[Math.floor(f / q) * m + j] : 0);
    });
  }

  return {
    images: () => images,
    /** Replaces the images by some of them, which may be the same. */
    resample(ancestors) {
      const of = (all) => ancestors.map((from, to) => (from === to ? all[to] : all[from].slice()));
      for (const map of maps) map.data = of(map.data);
      images = of(images);
    },
    /** Yields after a pixel how many values are decided; `choose` gives a value of each image. */
    *decide(choose) {
      for (let index = 0; index < size; index++) {
        const channel = index % channels, pixel = (index - channel) / channels;
        const column = pixel % width, row = (pixel - column) / width, n = outputs.count;
        for (let c = width; row && !column && !channel && c--; )
          for (const step of afterRow) for (const lane of lanes) step(lane, row - 1, c, 0);
        for (const step of steps) for (const lane of lanes) step(lane, row, column, channel);
        const given = lanes.map((lane) => x.view(lane, row, column));
        const values = choose(given.map((y) => y.subarray(channel * n, (channel + 1) * n)), index);
        images.forEach((image, lane) => {
          image[index] = values[lane];
          inputs.view(lane, row, column)[channel] = (2 * image[index]) / (levels - 1) - 1;
        });
        if (channel === channels - 1) yield index + 1;
      }
    },
  };
}
