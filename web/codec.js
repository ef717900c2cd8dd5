/** Files of `pixel-rnn-jax compress`, read as docs/format.md describes them. */

function need(good, text) { if (!good) throw new Error(`the compressed file ${text}`); }

/** The CRC-32 of bytes, going on from the one of bytes before. */
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
  const file = { at: 0 };
  file.take = (count) => bytes.subarray(file.at, (file.at += count));
  file.word = () => [1, 2 ** 8, 2 ** 16, 2 ** 24].reduce((sum, unit) => sum + unit * bytes[file.at++], 0);
  file.varint = (unit = 1) => {
    const byte = bytes[file.at++];
    need(byte >= 0 && unit < 2 ** 49, "is damaged: a number has no end");
    return byte < 128 ? byte * unit : (byte - 128) * unit + file.varint(128 * unit);
  };
  return file;
}

/** Returns the blocks of a file, whose checksums are right but for the values'. */
function blocksOf(bytes, { shape, levels, size }) {
  const file = readerOf(bytes), blocks = [], numbers = (count) => Array.from({ length: count }, () => file.varint());
  const begins = (...mark) => mark.every((byte, i) => bytes[file.at + i] === byte) && file.take(mark.length);
  const seal = (from, seed, crc = crc32(bytes.subarray(from, file.at), seed)) => {
    need(file.word() === crc, "is damaged: a checksum is wrong");
    return crc;
  };
  need(begins(0x89, 0x50, 0x52, 0x4e, 2), "is of another version, or none at all");
  need(numbers(4).join() === [...shape, levels].join(), "is damaged, or of another model");
  const first = file.take(8) && file.word(), seed = seal(0, 0);
  let images = 0, from = file.at;
  for (; begins(0xb1, 0x50, 0x42); from = file.at) {
    const [start, count, ...lengths] = numbers(6), begin = file.at;
    const [, condition, corrections, code] = lengths.map(file.take), sections = bytes.subarray(begin, file.at);
    blocks.push({ count, corrections, code, values: file.word(), crc: seal(from, seed) });
    need(start === images && (start || crc32(sections) === first), "misses a block, or has one of another file");
    need(count && count * size <= Math.max(2 ** 22, size) && !condition.length, "has a block that is of no model here");
    images += count;
  }
  need(begins(0xb1, 0x50, 0x45) && file.varint() === images, "is damaged: no block or end follows");
  const all = new Uint8Array(Uint32Array.from(blocks, ({ crc }) => crc).buffer);
  need(file.word() === crc32(all), "has a block of another file");
  seal(from, seed);
  need(file.at === bytes.length, "goes on after its end");
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
    [low, range] = [(low + unit * BigInt(left)) & mask, unit * BigInt(frequencies[value])];
    if (range < 2n ** 32n) [low, range, point] = [(low << 32n) & mask, range << 32n, ((point << 32n) | word()) & mask];
    return value;
  };
}

/** The frequencies of values by their logits on the grid. No weight is so near a half that exp's last digits matter. */
function frequenciesOf(grid) {
  const top = grid.reduce((a, b) => Math.max(a, b)), free = 2 ** 24 - grid.length;
  const weights = grid.map((q) => Math.floor(2 ** 24 * Math.exp((q - top) / 256) + 0.5));
  const sum = weights.reduce((a, b) => a + b), shares = weights.map((w) => 1 + Math.floor((w * free) / sum));
  shares[grid.indexOf(top)] += 2 ** 24 - shares.reduce((a, b) => a + b);
  return shares;
}

/** Decodes a file. Yields after each pixel a group of images and how many values are decided, at last all images. */
function* decode(model, bytes) {
  const { levels, size, config: { num_classes: n } } = model, images = [], classes = [];
  const exact = { ...model, kernels: {}, array: (name) => Float64Array.from(new Float32Array(model.array(name))) };
  const uniform = Array.from({ length: n ?? 0 }, (_, i) => Math.floor(2 ** 24 / n) + (i === n - 1 ? 2 ** 24 % n : 0));
  for (const block of blocksOf(bytes, model)) {
    const next = rangeDecoder(block.code), fixed = new Map(), file = readerOf(block.corrections), begin = images.length;
    let number = 0;
    for (let value; file.at < block.corrections.length; fixed.set(number, value % 4))
      number += Math.floor((value = file.varint()) / 4);
    number = 0;
    const round = (x) => {
      const q = Math.min(Math.max(Math.round(256 * x), -(2 ** 29)), 2 ** 29), r = fixed.get(number++) ?? q;
      return q - 1 + ((((r - q + 1) % 4) + 4) % 4); // The neighbour, or q itself, that is r modulo 4.
    };
    const choose = (given) => given.map((x) => next(frequenciesOf(levels === 2 ? [0, round(x[1])] : x.map(round))));
    while (images.length < begin + block.count) {
      const group = Math.min(64, Math.max(1, Math.floor(2 ** 21 / size)), begin + block.count - images.length);
      const labels = Array.from({ length: group }, () => (n ? next(uniform) : undefined));
      const lanes = labels.map((label) => laneOf(exact, label));
      yield* decide(lanes, model, choose);
      images.push(...lanes.map((lane) => lane.image));
      classes.push(...labels);
    }
    const Values = levels <= 256 ? Uint8Array : Uint16Array, coded = Int32Array.from(n ? classes.slice(begin) : []);
    const all = [coded, ...images.slice(begin).map((image) => Values.from(image))];
    const crc = all.reduce((crc, array) => crc32(new Uint8Array(array.buffer), crc), 0);
    need(crc === block.values, `has other images than ${begin + 1} to ${images.length} as this model decodes it`);
  }
  yield { images, decided: size, classes: n ? classes : undefined };
}

if (typeof module === "object") var { decide, laneOf } = require("./model.js"); // For Node; a page has them by name.
if (typeof module === "object") module.exports = { decode };
