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

/** Returns the blocks of a file, whose checksums are right but for the values'. */
function blocksOf(bytes, { shape, levels, size }) {
  const file = readerOf(bytes), blocks = [];
  const varints = (count) => Array.from({ length: count }, () => file.varint());
  const begins = (...mark) => file.take(mark.length).join() === mark.join();
  const seal = (from, seed) => {
    const crc = crc32(bytes.subarray(from, file.offset), seed);
    need(file.word() === crc, "is damaged: a checksum is wrong");
    return crc;
  };
  need(begins(0x89, 0x50, 0x52, 0x4e, 2), "is of another version, or none at all");
  need(varints(4).join() === [...shape, levels].join(), "is damaged, or of another model");
  file.take(12);
  const seed = seal(0, 0);
  let from = file.offset;
  for (; begins(0xb1, 0x50, 0x42); from = file.offset) {
    const [, count, ...lengths] = varints(6), [, , corrections, code] = lengths.map(file.take);
    need(count * size <= Math.max(2 ** 22, size), "has more values than a block may have");
    blocks.push({ count, corrections, code, values: file.word(), crc: seal(from, seed) });
  }
  file.offset = from;
  need(begins(0xb1, 0x50, 0x45), "is damaged: no block or end follows");
  const all = crc32(new Uint8Array(Uint32Array.from(blocks, ({ crc }) => crc).buffer));
  need(file.varint() >= 0 && file.word() === all, "has a block of another file");
  seal(from, seed);
  need(file.offset === bytes.length, "goes on after its end");
  return blocks;
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

/** Decodes a file. Yields after each pixel a group of images, at last all with their classes. */
function* decode(model, bytes) {
  const { levels, size, outputs, config: { num_classes: n } } = model, images = [], classes = [];
  const exact = { ...model, arrays: { ...model.arrays } };
  for (const name in exact.arrays) exact.arrays[name] = exact.arrays[name].map(Math.fround);
  const uniform = Array(n ?? 0).fill(Math.floor(2 ** 24 / n));
  if (n) uniform[n - 1] += 2 ** 24 % n;
  for (const { count, corrections, code, values } of blocksOf(bytes, model)) {
    const next = rangeDecoder(code), round = gridOf(corrections), begin = images.length;
    const digit = (logits) =>
      next(frequenciesOf(levels === 2 ? [0, round(logits[1] - logits[0])] : logits.map(round)));
    const choose = (given) => outputs.units.reduce((before, unit) => given.map((y, lane) =>
      before[lane] + unit * digit(outputs.logits(y, unit, before[lane]))), given.map(() => 0));
    while (images.length < begin + count) {
      const most = Math.min(64, Math.max(1, Math.floor(2 ** 21 / size)));
      const group = { length: Math.min(most, begin + count - images.length) };
      const labels = Array.from(group, () => (n ? next(uniform) : undefined));
      const network = networkOf(exact, labels);
      for (const decided of network.decide(choose)) yield { images: network.images(), decided };
      images.push(...network.images());
      classes.push(...labels);
    }
    const Values = levels <= 256 ? Uint8Array : Uint16Array;
    const all = images.slice(begin).map((image) => Values.from(image));
    if (n) all.unshift(Int32Array.from(classes.slice(begin)));
    const crc = all.reduce((crc, array) => crc32(new Uint8Array(array.buffer), crc), 0);
    need(crc === values, "has other images than this model decodes");
  }
  yield { images, decided: size, classes: n ? classes : undefined };
}
