/** What a model says of images: log p of each value, and images drawn or completed. */

/** The logarithm of a sum of exponentials. */
function logSum(logs) {
  const top = logs.reduce((a, b) => Math.max(a, b));
  return top + Math.log(logs.reduce((sum, log) => sum + Math.exp(log - top), 0));
}

/**
 * What the outputs for a value mean: their number, the units of the digits of a value, and the
 * logits of a digit of n values, given the value of the digits before, as docs/format.md has them.
 */
function outputsOf({ output, mixtures }, levels) {
  const sigmoid = levels === 2, half = levels / 2, units = [1];
  if (output === "softmax")
    return { count: sigmoid ? 1 : levels, units, logits: (y) => (sigmoid ? [0, ...y] : [...y]) };
  while (levels >= 64 && 16 * units[0] < levels) units.unshift(16 * units[0]);
  /** The logarithm of a component's mass from x to x + unit, without a difference. */
  function mass(x, unit, mean, width) {
    const a = (x - mean) / width, b = a + unit / width, low = x === 0, high = x + unit >= levels;
    const below = low ? 0 : Math.max(a, 0) + Math.log1p(Math.exp(-Math.abs(a)));
    const above = high ? 0 : Math.max(-b, 0) + Math.log1p(Math.exp(-Math.abs(b)));
    return (low || high ? 0 : Math.log(-Math.expm1(-unit / width))) - below - above;
  }
  const most = units.length > 1 ? 16 : levels, first = Math.max(half / mixtures, 0.05);
  function logits(y, unit, before, n = Math.min(most, Math.ceil(levels / unit))) {
    const weights = y.subarray(0, mixtures), sum = logSum(weights);
    const parts = Array.from(weights, (weight, j) => {
      const width = Math.min(Math.max(first * Math.exp(y[2 * mixtures + j]), 0.05), 10 * half);
      return [weight - sum, (y[mixtures + j] + (2 * (j + 1)) / (mixtures + 1)) * half, width];
    });
    return Array.from({ length: n }, (_, i) => before + i * unit).map((x) =>
      x < levels ? logSum(parts.map(([log, ...part]) => log + mass(x, unit, ...part))) : -Infinity);
  }
  return { count: 3 * mixtures, units, logits };
}

/** The logarithm of the probability of a value. */
function logOf({ units, logits }, y, value) {
  let log = 0, before = 0;
  for (const unit of units) {
    const logs = logits(y, unit, before), digit = Math.floor((value - before) / unit);
    log += logs[digit] - logSum(logs);
    before += digit * unit;
  }
  return log;
}

/** Draws a value. A temperature divides the logits of the levels. */
function drawn({ units, logits }, levels, y, temperature) {
  let value = 0;
  for (const unit of temperature === 1 ? units : [1]) {
    const logs = temperature === 1 ? logits(y, unit, value) : logits(y, 1, 0, levels);
    const top = logs.reduce((a, b) => Math.max(a, b)), heat = Math.max(temperature, 1e-300);
    const weights = logs.map((log) => Math.exp((log - top) / heat));
    let place = Math.random() * weights.reduce((a, b) => a + b);
    value += unit * Math.max(0, weights.findIndex((weight) => (place -= weight) < 0));
  }
  return value;
}

/** Returns log p of each value of an image. */
function logProb(model, image, label) {
  const logs = new Float64Array(model.size), choose = ([y], index) => {
    logs[index] = logOf(model.outputs, y, image[index]);
    return [image[index]];
  };
  for (const _ of networkOf(model, [label]).decide(choose));
  return logs;
}

/** Returns the parts of a picture, each as its model and its place. */
function placesOf(model, size, side = model.side) {
  return [...partsOf([size], side)].flatMap(([shape, places]) =>
    places.map((place) => [sizedTo(model, shape.split(",").map(Number)), place]));
}

/** Yields -log p of each value of a picture so far, and the share that is done. */
function* score(model, size, image, label) {
  const nats = new Float64Array(image.length), places = placesOf(model, size);
  for (const [i, [sized, place]] of places.entries()) {
    const part = new Int32Array(sized.size);
    copyPart(part, sized, image, size[1], place, true);
    copyPart(logProb(sized, part, label).map((log) => -log), sized, nats, size[1], place);
    yield { nats, share: (i + 1) / places.length };
  }
}

/** Systematic resampling: the copies of each are its weight times their number, to the next one. */
function ancestorsOf(logs) {
  const sum = logSum(logs), share = (i) => Math.exp(logs[i] - sum) * logs.length;
  const offset = Math.random(), last = logs.length - 1;
  let from = 0, upTo = share(0);
  return Array.from(logs, (_, to) => {
    while (to + offset > upTo && from < last) upTo += share(++from);
    return from;
  });
}

/**
 * Draws images side by side, given the known values of one, by sequential Monte Carlo as
 * docs/generation.md says. Yields after each pixel the images, the number of decided values,
 * log p(known), and the smallest effective sample size.
 */
function* complete(model, image, known, count, label, temperature = 1) {
  const network = networkOf(model, Array(count).fill(label)), logs = new Float64Array(count);
  let evidence = 0, smallest = count;
  const choose = (given, index) => given.map((y, lane) => {
    if (!known[index]) return drawn(model.outputs, model.levels, y, temperature);
    logs[lane] += logOf(model.outputs, y, image[index]);
    return image[index];
  });
  for (const decided of network.decide(choose)) {
    const sum = logSum(logs), size = Math.exp(2 * sum - logSum(logs.map((log) => 2 * log)));
    smallest = Math.min(smallest, size);
    if (size < count / 2 || decided === model.size) {
      network.resample(ancestorsOf(logs));
      evidence += sum - Math.log(count);
      logs.fill(0);
    }
    yield { images: network.images(), decided, evidence, smallest };
  }
}

/**
 * Completes a picture by its parts with unknown values, or as one part if it is `whole`. Yields
 * what `complete` does, with which values are shown and the share that is done.
 */
function* completePicture(model, size, image, known, count, label, heat, whole) {
  const picture = Int32Array.from(image), shown = Uint8Array.from(known), side = Math.max(...size);
  const images = Array.from({ length: count }, () => picture.slice());
  const parts = placesOf(model, size, whole ? side : model.side).map(([sized, place]) => {
    const given = new Int32Array(sized.size), seen = new Uint8Array(sized.size);
    copyPart(given, sized, picture, size[1], place, true);
    copyPart(seen, sized, shown, size[1], place, true);
    return { sized, place, given, seen };
  }).filter(({ seen }, _, all) => all.length === 1 || seen.includes(0));
  const total = parts.reduce((sum, { sized }) => sum + sized.size, 0);
  let evidence = 0, smallest = count, done = 0;
  for (const { sized, place, given, seen } of parts) {
    let last;
    for (last of complete(sized, given, seen, count, label, heat)) {
      last.images.forEach((part, i) => copyPart(part, sized, images[i], size[1], place));
      copyPart(seen.fill(1, 0, last.decided), sized, shown, size[1], place);
      yield { images, shown, share: (done + last.decided) / total,
        evidence: evidence + last.evidence, smallest: Math.min(smallest, last.smallest) };
    }
    done += sized.size;
    evidence += last.evidence;
    smallest = Math.min(smallest, last.smallest);
  }
  yield { images, shown, share: 1, evidence, smallest };
}
