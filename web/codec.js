/** Files of `pixel-rnn-jax compress`, read as docs/format.md describes them. */

function need(good, text) { if (!good) throw new Error(`the compressed file ${text}`); }

/** The CRC-32 of bytes, going on from the CRC-32 of bytes before. */
function crc32(bytes, before = 0) {
  let crc = ~before;
  for (const byte of bytes) {
    crc ^= byte;
    for (let bit = 0; bit < 8; bit++) crc = (crc >>> 1) ^ (crc & 1 && 0xedb88320);
  }
  return ~crc >>> 0;
}

/** Reads bytes one after another; a word beyond the end is NaN. */
function readerOf(bytes) {
  const file = { offset: 0 };
  file.take = (count) => bytes.subarray(file.offset, (file.offset += count));
  file.word = () => [0, 8, 16, 24].reduce((sum, bits) => sum + 2 ** bits * bytes[file.offset++], 0);
  file.varint = (unit = 1) => {
    const byte = bytes[file.offset++];
    need(byte >= 0 && unit < 2 ** 49, "is damaged: a number has no end");
    return byte < 128 ? byte * unit : (byte - 128) * unit + file.varint(128 * unit);
  };
  return file;
}

/** Returns T of a file, and its blocks, whose checksums are right but for the values'. */
function blocksOf(bytes, { shape: [, , channels], levels }) {
  const file = readerOf(bytes), blocks = [];
  const varints = (count) => Array.from({ length: count }, () => file.varint());
  const begins = (...mark) => file.take(mark.length).join() === mark.join();
  const seal = (from, seed) => {
    const crc = crc32(bytes.subarray(from, file.offset), seed);
    need(file.word() === crc, "is damaged: a checksum is wrong");
    return crc;
  };
  need(begins(0x89, 0x50, 0x52, 0x4e, 3), "is of another version, or none at all");
  const [ofChannels, ofLevels, side] = varints(3);
  need(ofChannels === channels && ofLevels === levels && side, "is damaged, or of another model");
  file.take(12);
  const seed = seal(0, 0);
  let from = file.offset;
  for (; begins(0xb1, 0x50, 0x42); from = file.offset) {
    const [, count, ...lengths] = varints(7);
    const [runs, , , corrections, code] = lengths.map(file.take), values = file.word();
    blocks.push({ sizes: sizesOf(runs, count, channels), corrections, code, values,
      crc: seal(from, seed) });
  }
  file.offset = from;
  need(begins(0xb1, 0x50, 0x45), "is damaged: no block or end follows");
  const all = crc32(new Uint8Array(Uint32Array.from(blocks, ({ crc }) => crc).buffer));
  need(file.varint() >= 0 && file.word() === all, "has a block of another file");
  seal(from, seed);
  need(file.offset === bytes.length, "goes on after its end");
  return { side, blocks };
}

/** Returns the [height, width] of each picture of a block, of the section with their runs. */
function sizesOf(section, count, channels) {
  const file = readerOf(section), sizes = [];
  let values = 0;
  while (file.offset < section.length) {
    const [n, height, width] = [0, 0, 0].map(() => file.varint()), pixels = n * height * width;
    values += pixels * channels;
    need(pixels && n <= count && values <= 2 ** (count > 1 ? 22 : 25), "has too many values");
    for (let i = 0; i < n; i++) sizes.push([height, width]);
  }
  need(sizes.length === count, "has sizes of other images");
  return sizes;
}

/** Returns a function that decodes the next value, given the frequencies of all. */
function rangeDecoder(code) {
  const file = readerOf(code), word = () => BigInt(file.word() || 0), mask = 2n ** 64n - 1n;
  let low = 0n, range = mask, point = (word() << 32n) | word();
  return (frequencies) => {
    const unit = range >> 24n, place = Number(((point - low) & mask) / unit);
    let value = 0, left = 0;
    while (place >= left + frequencies[value]) left += frequencies[value++];
    need(value < frequencies.length, "has a code of another model");
    low = (low + unit * BigInt(left)) & mask;
    range = unit * BigInt(frequencies[value]);
    if (range < 2n ** 32n) {
      low = (low << 32n) & mask;
      range <<= 32n;
      point = ((point << 32n) | word()) & mask;
    }
    return value;
  };
}

/** The frequencies of values by their logits on the grid. */
function frequenciesOf(grid) {
  const top = grid.reduce((a, b) => Math.max(a, b)), free = 2 ** 24 - grid.length;
  // `exp` need not be exact: no 2^24·exp(-d/256) is near n + 1/2.
  const weights = grid.map((q) => Math.floor(2 ** 24 * Math.exp((q - top) / 256) + 0.5));
  const sum = weights.reduce((a, b) => a + b);
  const shares = weights.map((weight) => 1 + Math.floor((weight * free) / sum));
  shares[grid.indexOf(top)] += 2 ** 24 - shares.reduce((a, b) => a + b);
  return shares;
}

/** Returns a function that brings the next logit of a block to the grid, corrected. */
function gridOf(corrections) {
  const file = readerOf(corrections), fixed = new Map();
  let number = 0;
  while (file.offset < corrections.length) {
    const correction = file.varint();
    number += Math.floor(correction / 4);
    fixed.set(number, correction % 4);
  }
  number = 0;
  return (logit) => {
    const q = Math.min(Math.max(Math.round(256 * logit), -(2 ** 29)), 2 ** 29);
    const remainder = fixed.get(number++) ?? q;
    return q - 1 + ((((remainder - q + 1) % 4) + 4) % 4); // Of q - 1, q and q + 1.
  };
}

/** Divides pictures, by their numbers of values, into groups that are coded one by one. */
function groupsOf(counts) {
  const groups = [];
  let values = Infinity;
  counts.forEach((count, i) => {
    if ((values += count) > 2 ** 21 || groups.at(-1).length === 64) {
      groups.push([]);
      values = count;
    }
    groups.at(-1).push(i);
  });
  return groups;
}

/**
 * Decodes a file. Yields while it does how many pixels of parts are decoded, at last the images
 * with their sizes, [height, width], and their classes.
 */
function* decode(model, bytes) {
  const { levels, outputs, shape: [, , channels], config: { num_classes: n } } = model;
  const exact = { ...model, arrays: { ...model.arrays } };
  for (const name in exact.arrays) exact.arrays[name] = exact.arrays[name].map(Math.fround);
  const uniform = Array(n ?? 0).fill(Math.floor(2 ** 24 / n));
  if (n) uniform[n - 1] += 2 ** 24 % n;
  const Values = levels <= 256 ? Uint8Array : Uint16Array;
  const heavy = outputs.units.length > 1 ? 32 : Math.max(32, levels);
  const images = [], classes = [], all = [], { side, blocks } = blocksOf(bytes, model);
  let pixels = 0;
  for (const { sizes, corrections, code, values } of blocks) {
    const next = rangeDecoder(code), round = gridOf(corrections), labels = [];
    const digit = (logits) =>
      next(frequenciesOf(levels === 2 ? [0, round(logits[1] - logits[0])] : logits.map(round)));
    const choose = (given) => outputs.units.reduce((before, unit) => given.map((y, lane) =>
      before[lane] + unit * digit(outputs.logits(y, unit, before[lane]))), given.map(() => 0));
    const pictures = sizes.map(([height, width]) => new Values(height * width * channels));
    for (const group of groupsOf(pictures.map(({ length }) => length))) {
      for (const i of group) labels[i] = n ? next(uniform) : undefined;
      for (const [size, parts] of partsOf(group.map((i) => sizes[i]), side)) {
        const sized = sizedTo(exact, size.split(",").map(Number));
        const count = Math.min(64, Math.max(1, Math.floor(2 ** 26 / (sized.size * heavy))));
        for (let start = 0; start < parts.length; start += count) {
          const lanes = parts.slice(start, start + count);
          const network = networkOf(sized, lanes.map(({ picture }) => labels[group[picture]]));
          for (const _ of network.decide(choose)) yield { pixels: (pixels += lanes.length) };
          network.images().forEach((part, lane) => {
            const i = group[lanes[lane].picture];
            copyPart(part, sized, pictures[i], sizes[i][1], lanes[lane]);
          });
        }
      }
    }
    const arrays = n ? [Int32Array.from(labels), ...pictures] : pictures;
    const crc = arrays.reduce((crc, array) => crc32(new Uint8Array(array.buffer), crc), 0);
    need(crc === values, "has other images than this model decodes");
    images.push(...pictures);
    classes.push(...labels);
    all.push(...sizes);
  }
  yield { images, sizes: all, classes: n ? classes : undefined };
}
