"""The range coder of blocks of images, driven by the model's own distribution of each value.

The decoder has to compute every probability to the last bit as the encoder did. So both run the
same compiled loop over values, with a fixed number of lanes, on one device, in float32, under
compiler options that leave nothing to the environment. In its middle the loop calls back to the
host, which codes the values of all lanes. What else decides the last bits is said by `machine`.
"""

import contextlib
import dataclasses
import functools
import hashlib
import importlib.metadata
import itertools
import platform
import re
import time
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import constriction
import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.experimental import io_callback

from pixel_rnn_jax import terminal
from pixel_rnn_jax.config import ModelConfig
from pixel_rnn_jax.data import Batch, value_dtype
from pixel_rnn_jax.errors import UserError
from pixel_rnn_jax.generation.decode import Place, decode
from pixel_rnn_jax.models import PixelRNN

PyTree = Any
Code = Callable[[np.ndarray, int, int, int], np.ndarray]

LANES = 256
"""Images of a block, which are coded side by side; a block with fewer is filled up with zeros."""

COMPILER_OPTIONS: dict[str, dict[str, Any]] = {
    # A matmul is Eigen's, on one thread; its sums are then split by its sizes alone.
    "cpu": {
        "xla_cpu_multi_thread_eigen": False,
        "xla_cpu_experimental_ynn_fusion_type": "",
        "xla_cpu_use_onednn": False,
        "xla_cpu_enable_fast_math": False,
    },
    # Autotuning takes the algorithm that happens to be the fastest.
    "gpu": {"xla_gpu_autotune_level": 0, "xla_gpu_deterministic_ops": True},
}


class Coder:
    """Codes blocks of images with one model.

    The classes of a model with classes come first, each with the same probability. Then come the
    values in generation order.

    Attributes:
        model: The model, in float32.
        params: Its parameters, in float32.
        device: Where it is computed.
    """

    def __init__(self, model: PixelRNN, params: PyTree):
        """Prepares to code.

        Raises:
            UserError: The model gives values no probability, or its parameters are not finite.
        """
        model.check_conditionals()
        # What a model is computed in, and how, is no part of it.
        config = dataclasses.replace(model.config, dtype="float32", remat=False, pack=1)
        self.model = dataclasses.replace(model, config=config)
        self.device = jax.local_devices()[0]
        floats = jax.tree.map(lambda leaf: np.asarray(leaf, np.float32), params)
        if not all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(floats)):
            raise UserError("the model has parameters that are not finite: train it again")
        self.params = jax.device_put(floats, self.device)

    def encode(self, batch: Batch) -> bytes:
        """Returns the code of at most `LANES` images `[B, H, W, C]` with their classes `[B]`."""
        encoder = constriction.stream.queue.RangeEncoder()
        entropy_model = _entropy_model(self.model.levels)
        if batch.labels is not None:
            encoder.encode(batch.labels.astype(np.int32), self._any_class())
        images = batch.images.astype(np.int32)

        def encode(probabilities: np.ndarray, row: int, column: int, channel: int) -> np.ndarray:
            symbols = np.ascontiguousarray(images[:, row, column, channel])
            encoder.encode(symbols, entropy_model, probabilities)
            return symbols

        self._each_value(len(images), batch.labels, encode)
        return encoder.get_compressed().astype("<u4").tobytes()

    def decode(self, code: bytes, count: int) -> Batch:
        """Returns the `[count, H, W, C]` images of a code with their classes.

        Raises:
            ValueError: This is not the code of images under these probabilities.
        """
        words = np.frombuffer(code, "<u4").astype(np.uint32)
        decoder = constriction.stream.queue.RangeDecoder(words)
        entropy_model = _entropy_model(self.model.levels)
        labels = None
        if self.model.config.classes:
            labels = decoder.decode(self._any_class(), count)
        images = np.empty((count, *self.model.image_shape), value_dtype(self.model.levels))

        def decode(probabilities: np.ndarray, row: int, column: int, channel: int) -> np.ndarray:
            try:
                symbols = decoder.decode(entropy_model, probabilities)
            except AssertionError as error:  # How constriction says that this cannot be.
                raise ValueError(str(error)) from error
            images[:, row, column, channel] = symbols
            return symbols

        self._each_value(count, labels, decode)
        return Batch(images, labels)

    def _any_class(self) -> Any:
        return constriction.stream.model.Uniform(self.model.config.classes)

    def _each_value(self, count: int, labels: np.ndarray | None, code: Code) -> None:
        """Calls `code` for each value in turn, with its distribution given all before it.

        Args:
            count: Number of images.
            labels: `[count]` classes, for a model with classes.
            code: (probabilities `[count, K]` (K = 2: `[count]`, those of the value 1), row, column,
                channel) to the values, `[count]`; row and column are those of the whole image.
        """
        if labels is not None:
            labels = np.pad(labels.astype(np.int32), (0, LANES - count))
        run = _compiled(self.model, self.device, LANES)
        rows = sum(len(scale.given) for scale in self.model.scales)
        with (
            terminal.bar(range(rows), rows, "coding", "row") as progress,
            _session(_Session(self.model, count, code, progress)) as (number, session),
        ):
            arguments = jax.device_put((labels, np.int32(number)), self.device)
            image: Any = run(self.params, *arguments)
            while not image.is_ready():  # So that Ctrl-C is heard.
                time.sleep(0.002)
        if session.error is not None:
            raise session.error


class _Session:
    """One block being coded: what the compiled loop calls back to."""

    def __init__(self, model: PixelRNN, count: int, code: Code, progress: Any):
        self.error: BaseException | None = None
        self._model, self._count, self._code, self._progress = model, count, code, progress

    def __call__(
        self, probabilities: Any, scale: int, row: int, column: int, channel: int
    ) -> np.ndarray:
        values = np.zeros(len(probabilities), np.int32)
        own = self._model.scales[scale]
        if self.error is not None or own.given[row, column]:
            return values
        try:
            own_rows = np.asarray(probabilities)[: self._count]
            at = own.stride * row, own.stride * column, channel
            values[: self._count] = self._code(own_rows, *at)
        except Exception as error:  # XLA would tell it with a stack of its own.
            self.error = error
        if column == own.given.shape[1] - 1 and channel == self._model.image_shape[-1] - 1:
            self._progress.update()
        return values


# A compiled loop is used for many blocks, so that it names its session by a number.
_sessions: dict[int, _Session] = {}
_numbers = itertools.count()


@contextlib.contextmanager
def _session(session: _Session) -> Iterator[tuple[int, _Session]]:
    number = next(_numbers) % 2**31
    _sessions[number] = session
    try:
        yield number, session
    finally:
        del _sessions[number]


@functools.lru_cache(maxsize=16)
def _compiled(model: PixelRNN, device: jax.Device, lanes: int) -> Callable[..., Array]:
    """Compiles the loop over the values of images; see `COMPILER_OPTIONS`.

    Returns:
        A function of the parameters, the classes `[lanes]` (or None) and the number of a session.
    """
    likelihood = model.check_conditionals()
    result = jax.ShapeDtypeStruct((lanes,), jnp.int32)

    def run(params: PyTree, labels: Array | None, session: Array) -> Array:
        def choose(carry: None, outputs: Array, place: Place) -> tuple[None, Array]:
            logits = likelihood.logits(outputs)
            if model.levels == 2:
                probabilities = jax.nn.sigmoid(logits[:, 0])
            else:
                probabilities = jax.nn.softmax(logits, axis=-1)

            def on_host(session: Any, probabilities: Any, row: Any, column: Any) -> np.ndarray:
                found = _sessions[int(session)]
                return found(probabilities, place.scale, int(row), int(column), place.channel)

            arguments = session, probabilities, place.row, place.column
            return None, io_callback(on_host, result, *arguments, ordered=True)

        return decode(model, params, choose, None, lanes=lanes, labels=labels)[0]

    # Whatever the caller has set.
    with jax.enable_x64(False), jax.default_matmul_precision("highest"):
        sharding = jax.sharding.SingleDeviceSharding(device)
        labels = jax.ShapeDtypeStruct((lanes,), jnp.int32) if model.config.classes else None
        session = jax.ShapeDtypeStruct((), jnp.int32)
        shapes = jax.tree.map(
            lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding),
            (jax.eval_shape(model.init, jax.random.key(0)), labels, session),
        )
        options = COMPILER_OPTIONS.get(device.platform)
        return jax.jit(run).lower(*shapes).compile(compiler_options=options)


def _entropy_model(levels: int) -> Any:
    if levels == 2:
        return constriction.stream.model.Bernoulli(perfect=False)
    return constriction.stream.model.Categorical(perfect=False)


def model_digest(model: PixelRNN, params: PyTree) -> bytes:
    """Returns a digest of the function that a model computes."""
    digest = hashlib.blake2b(digest_size=8)
    # Without the defaults: a field that a later version adds leaves the digest as it was.
    default = dataclasses.asdict(ModelConfig())
    fields = dataclasses.asdict(model.config).items()
    said = sorted(item for item in fields if item[1] != default[item[0]])
    digest.update(repr((said, model.image_shape, model.levels)).encode())
    for path, leaf in jax.tree_util.tree_leaves_with_path(params):
        digest.update(f"{jax.tree_util.keystr(path)} {leaf.shape}".encode())
        digest.update(np.asarray(leaf, "<f4").tobytes())
    return digest.digest()


def machine(device: jax.Device) -> str:
    """Returns in words what decides the last bits; the number stands for what has no short name."""
    kind, details = device.device_kind, device.client.platform_version
    if device.platform == "cpu":
        kind, details = _cpu()
    details += repr((LANES, COMPILER_OPTIONS.get(device.platform)))
    packages = ("jax", "jaxlib", "constriction")
    versions = ", ".join(f"{name} {importlib.metadata.version(name)}" for name in packages)
    return f"{device.platform} {kind[:64]} #{zlib.crc32(details.encode()):08x}, {versions}"


@functools.cache
def _cpu() -> tuple[str, str]:
    """Returns the name of the processor and the instructions for numbers that it has."""
    try:
        text = Path("/proc/cpuinfo").read_text()
    except OSError:  # Not Linux.
        return platform.processor() or platform.machine(), platform.machine()
    first = text.split("\n\n")[0]
    name = re.search(r"^model name\s*: (.*)$", first, re.MULTILINE)
    numbers = re.findall(r"^(?:cpu family|model|stepping|CPU part)\s*: .*$", first, re.MULTILINE)
    instructions = re.findall(r"\b(?:s?sse|avx|fma|f16c|amx|asimd|sve|sme|bf16)\w*", first)
    return name[1] if name else platform.machine(), repr((numbers, sorted(set(instructions))))
