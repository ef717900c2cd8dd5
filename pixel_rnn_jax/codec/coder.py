"""The range coder of blocks of images, driven by the model's own distribution of each value.

The decoder must compute every probability to the last bit as the encoder did. So both run the same
compiled loop over values, with a fixed number of lanes, on one device, in float32, under compiler
options that leave nothing to the environment. For each value the loop calls back to the host, which
codes it for all lanes. `machine` says what else decides the last bits.
"""

import dataclasses
import functools
import hashlib
import importlib.metadata
import itertools
import logging
import platform
import re
import zlib
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import constriction
import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.experimental import io_callback

from pixel_rnn_jax import terminal
from pixel_rnn_jax.batches import padded
from pixel_rnn_jax.config import ModelConfig
from pixel_rnn_jax.data import Batch, value_dtype
from pixel_rnn_jax.errors import UserError
from pixel_rnn_jax.generation.decode import Place, decode
from pixel_rnn_jax.models.checks import condition_form
from pixel_rnn_jax.pixel_rnn import PixelRNN

PyTree = Any
Code = Callable[[np.ndarray, tuple[int, int, int]], np.ndarray]
"""Codes the value at (row, column, channel) of N images: probabilities `[N, K]` to values `[N]`.

For K = 2 the probabilities are those of the value 1, `[N]`.
"""

LANES = 256
"""Images of a block, coded side by side; a smaller block is padded."""

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
    """Codes blocks of images with one model, in float32 on one device.

    The classes of a model with classes come first, each with the same probability. Then come the
    values in generation order. Vectors and maps are not coded: the decoder is given them.

    Raises:
        UserError: The model gives values no probability, or its parameters are not finite.
    """

    def __init__(self, model: PixelRNN, params: PyTree):
        model.discrete_likelihood()
        config = _computed_alike(model.config)
        self.model = dataclasses.replace(model, config=config)
        self.device = jax.local_devices()[0]
        floats = jax.tree.map(lambda leaf: np.asarray(leaf, np.float32), params)
        if not all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(floats)):
            raise UserError("the model has parameters that are not finite: train it again")
        self.params = jax.device_put(floats, self.device)
        models, binary = constriction.stream.model, model.levels == 2
        self._values = (models.Bernoulli if binary else models.Categorical)(perfect=False)
        self._classes = models.Uniform(config.classes) if config.classes else None

    def encode(self, batch: Batch) -> bytes:
        """Returns the code of at most `LANES` images `[B, H, W, C]` with their condition."""
        encoder = constriction.stream.queue.RangeEncoder()
        if self._classes:
            encoder.encode(batch.condition.astype(np.int32), self._classes)
        images = batch.images.astype(np.int32)

        def encode(probabilities: np.ndarray, place: tuple[int, int, int]) -> np.ndarray:
            symbols = np.ascontiguousarray(images[:, *place])
            encoder.encode(symbols, self._values, probabilities)
            return symbols

        self._each_value(len(images), batch.condition, encode)
        return encoder.get_compressed().astype("<u4").tobytes()

    def decode(self, code: bytes, count: int, condition: np.ndarray | None = None) -> Batch:
        """Returns the `[count, H, W, C]` images of a code with their condition.

        `condition` are their vectors or maps; classes are in the code.

        Raises:
            ValueError: This is not a code under these probabilities.
        """
        words = np.frombuffer(code, "<u4").astype(np.uint32)
        decoder = constriction.stream.queue.RangeDecoder(words)
        condition = decoder.decode(self._classes, count) if self._classes else condition
        images = np.empty((count, *self.model.image_shape), value_dtype(self.model.levels))

        def decode(probabilities: np.ndarray, place: tuple[int, int, int]) -> np.ndarray:
            try:
                symbols = decoder.decode(self._values, probabilities)
            except AssertionError as error:  # How constriction reports an impossible code.
                raise ValueError(str(error)) from error
            images[:, *place] = symbols
            return symbols

        self._each_value(count, condition, decode)
        return Batch(images, condition)

    def _each_value(self, count: int, condition: np.ndarray | None, code: Code) -> None:
        """Calls `code` for each value of `count` images in generation order."""
        if condition is not None:
            dtype = np.int32 if self._classes else np.float32
            condition = padded(condition.astype(dtype), LANES)
        scales, channels = self.model.scales, self.model.image_shape[-1]
        rows = sum(len(scale.given) for scale in scales)
        progress = terminal.bar(range(rows), rows, "coding", "row")
        errors: list[BaseException] = []

        def on_host(
            probabilities: np.ndarray, scale: int, row: int, column: int, channel: int
        ) -> np.ndarray:
            own, values = scales[scale], np.zeros(len(probabilities), np.int32)
            try:
                if not errors and not own.given[row, column]:
                    place = own.stride * row, own.stride * column, channel
                    values[:count] = code(probabilities[:count], place)
            except Exception as error:
                errors.append(error)
            if errors:
                raise _Stop
            if column == own.given.shape[1] - 1 and channel == channels - 1:
                progress.update()
            return values

        run, number = _compiled(self.model, self.device, LANES), next(_numbers) % 2**31
        arguments = jax.device_put((condition, np.int32(number)), self.device)
        _sessions[number] = on_host
        try:
            # On a CPU the call blocks until the end; in a thread, it lets Ctrl-C be heard before.
            with progress, ThreadPoolExecutor(1) as pool:
                running = pool.submit(lambda: jax.block_until_ready(run(self.params, *arguments)))
                try:
                    running.result()
                except BaseException as error:
                    errors.append(error)  # Ends the loop at its next value.
                    raise errors[0] from None
        finally:
            del _sessions[number]


class _Stop(Exception):
    """Ends a compiled loop; `_each_value` has the reason."""


# JAX logs every exception of a callback; this one is raised again in the caller.
logging.getLogger("jax._src.callback").addFilter(
    lambda record: not (record.exc_info and isinstance(record.exc_info[1], _Stop))
)

# A compiled loop serves many blocks, so it gets the number of its session as an argument.
_sessions: dict[int, Callable[..., np.ndarray]] = {}
_numbers = itertools.count()


@functools.lru_cache(maxsize=16)
def _compiled(model: PixelRNN, device: jax.Device, lanes: int) -> Callable[..., Array]:
    """Compiles the loop: a function of parameters, condition and number of a session."""
    likelihood = model.discrete_likelihood()
    number = jax.ShapeDtypeStruct((), jnp.int32)
    per_lane = jax.ShapeDtypeStruct((lanes,), jnp.int32)

    def run(params: PyTree, condition: Array | None, session: Array) -> Array:
        def choose(session: Array, outputs: Array, place: Place) -> tuple[Array, Array]:
            def on_host(session: Any, probabilities: Any, row: Any, column: Any) -> Any:
                call = _sessions[int(session)]
                at = place.scale, int(row), int(column), place.channel
                return session, call(np.asarray(probabilities), *at)

            logits = likelihood.logits(outputs)
            if model.levels == 2:
                probabilities = jax.nn.sigmoid(logits[:, 0])
            else:
                probabilities = jax.nn.softmax(logits, axis=-1)
            arguments = session, probabilities, place.row, place.column
            # Each call returns the session to the next one, which keeps them in order. (With
            # ordered=True, a call that fails would fail all later ones of the process.)
            return io_callback(on_host, (number, per_lane), *arguments)

        return decode(model.scales, params, choose, session, lanes=lanes, condition=condition)[0]

    # Whatever the caller has set for the process.
    with jax.enable_x64(False), jax.default_matmul_precision("highest"):
        sharding = jax.sharding.SingleDeviceSharding(device)
        shape, kind = condition_form(model.config, model.image_shape)
        dtype = jnp.int32 if model.config.classes else jnp.float32
        condition = jax.ShapeDtypeStruct((lanes, *shape), dtype) if kind else None
        shapes = jax.tree.map(
            lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding),
            (jax.eval_shape(model.init, jax.random.key(0)), condition, number),
        )
        options = COMPILER_OPTIONS.get(device.platform)
        return jax.jit(run).lower(*shapes).compile(compiler_options=options)


def _computed_alike(config: ModelConfig) -> ModelConfig:
    """Fixes the fields that say how a model is computed, not what it computes."""
    return dataclasses.replace(config, dtype="float32", remat=False, pack=1)


def model_digest(model: PixelRNN, params: PyTree) -> bytes:
    """Returns a digest of the function that a model computes."""
    digest = hashlib.blake2b(digest_size=8)
    # Without the defaults: a field that a later version adds leaves the digest as it was.
    default = dataclasses.asdict(ModelConfig())
    fields = dataclasses.asdict(_computed_alike(model.config)).items()
    changed = sorted(item for item in fields if item[1] != default[item[0]])
    units = (model.offset, model.scale) if model.scale else ()
    digest.update(repr((changed, model.image_shape, model.levels, *units)).encode())
    for path, leaf in jax.tree_util.tree_leaves_with_path(params):
        digest.update(f"{jax.tree_util.keystr(path)} {leaf.shape}".encode())
        digest.update(np.asarray(leaf, "<f4").tobytes())
    return digest.digest()


def machine(device: jax.Device) -> str:
    """Returns a name of what decides the last bits; a checksum stands for its longer parts."""
    kind, details = device.device_kind, device.client.platform_version
    if device.platform == "cpu":
        kind, details = _cpu()
    details += repr((LANES, COMPILER_OPTIONS.get(device.platform)))
    packages = ("jax", "jaxlib", "constriction")
    versions = ", ".join(f"{name} {importlib.metadata.version(name)}" for name in packages)
    return f"{device.platform} {kind[:64]} #{zlib.crc32(details.encode()):08x}, {versions}"


@functools.cache
def _cpu() -> tuple[str, str]:
    """Returns the name of the processor, and its model numbers with its vector instructions."""
    try:
        text = Path("/proc/cpuinfo").read_text()
    except OSError:  # Not Linux.
        return platform.processor() or platform.machine(), platform.machine()
    first = text.split("\n\n")[0]
    name = re.search(r"^model name\s*: (.*)$", first, re.MULTILINE)
    numbers = re.findall(r"^(?:cpu family|model|stepping|CPU part)\s*: .*$", first, re.MULTILINE)
    instructions = re.findall(r"\b(?:s?sse|avx|fma|f16c|amx|asimd|sve|sme|bf16)\w*", first)
    return name[1] if name else platform.machine(), repr((numbers, sorted(set(instructions))))
