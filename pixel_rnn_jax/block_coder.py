"""The range coder of blocks of images, driven by the model's own distribution of each value.

The decoder has to compute every probability to the last bit as the encoder did. So both call the
same compiled functions, one value of all lanes at a time, with a fixed number of lanes, on one
device, in float32, under compiler options that leave nothing to the environment. What else decides
the last bits is said by `machine`.
"""

import dataclasses
import functools
import hashlib
import importlib.metadata
import platform
import re
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import constriction
import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from pixel_rnn_jax import evaluate, likelihoods
from pixel_rnn_jax.errors import UserError
from pixel_rnn_jax.images import value_dtype
from pixel_rnn_jax.models.pixel_rnn import PixelRNN

PyTree = Any

LANES = 256
"""Images of a block, which are coded side by side; a block with fewer is filled up with zeros."""

COMPILER_OPTIONS: dict[str, dict[str, bool | int | str]] = {
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

    Attributes:
        module: The model, in float32.
        params: Its parameters, in float32.
        device: Where it is computed.
    """

    def __init__(self, module: PixelRNN, params: PyTree):
        # What a model is computed in, and how, is no part of it.
        config = dataclasses.replace(module.config, dtype="float32", remat=False, pack=1)
        self.module = PixelRNN(config, module.image_shape, module.levels)
        self.device = jax.local_devices()[0]
        floats = jax.tree.map(lambda leaf: np.asarray(leaf, np.float32), params)
        if not all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(floats)):
            raise UserError("the model has parameters that are not finite: train it again")
        self.params = jax.device_put(floats, self.device)

    def encode(self, images: np.ndarray) -> bytes:
        """Returns the code of `[B, H, W, C]` images, at most `LANES`."""
        encoder = constriction.stream.queue.RangeEncoder()
        model = _entropy_model(self.module.levels)
        values = images.astype(np.int32)

        def encode(probabilities: np.ndarray, row: int, column: int, channel: int) -> np.ndarray:
            symbols = np.ascontiguousarray(values[:, row, column, channel])
            encoder.encode(symbols, model, probabilities)
            return symbols

        self._each_value(len(images), encode)
        return encoder.get_compressed().astype("<u4").tobytes()

    def decode(self, code: bytes, count: int) -> np.ndarray:
        """Returns the `[count, H, W, C]` images of a code.

        Raises:
            ValueError: This is not the code of images under these probabilities.
        """
        words = np.frombuffer(code, "<u4").astype(np.uint32)
        decoder = constriction.stream.queue.RangeDecoder(words)
        model = _entropy_model(self.module.levels)
        images = np.empty((count, *self.module.image_shape), value_dtype(self.module.levels))

        def decode(probabilities: np.ndarray, row: int, column: int, channel: int) -> np.ndarray:
            try:
                symbols = decoder.decode(model, probabilities)
            except AssertionError as error:  # How constriction says that this cannot be.
                raise ValueError(str(error)) from error
            images[:, row, column, channel] = symbols
            return symbols

        self._each_value(count, decode)
        return images

    def _each_value(self, count: int, code: Callable[..., np.ndarray]) -> None:
        """Calls `code` for each value in turn, with its distribution given all before it.

        Args:
            count: Number of images.
            code: (probabilities `[count, K]` (K = 2: `[count]`, those of the value 1), row, column,
                channel) to the values, `[count]`.
        """
        height, width, channels = self.module.image_shape
        functions = _compiled(self.module, self.device, LANES)
        columns = [jax.device_put(np.int32(column), self.device) for column in range(width)]
        state = functions.init_state(self.params)
        for row in range(height):
            for column in range(width):
                pixel = np.zeros((LANES, channels), np.int32)
                for channel in range(channels):
                    # A copy: JAX may still be reading what is filled in next.
                    place = jax.device_put(pixel.copy(), self.device), columns[column]
                    if channel < channels - 1:
                        result = functions.channel[channel](self.params, state, *place)
                    else:
                        result, state = functions.last_channel(self.params, state, *place)
                    probabilities = np.asarray(result)[:count]
                    pixel[:count, channel] = code(probabilities, row, column, channel)
                place = jax.device_put(pixel, self.device), columns[column]
                state = functions.end_pixel(self.params, state, *place)
            state = functions.end_row(self.params, state)


@dataclass(frozen=True)
class _Functions:
    """The incremental form, compiled for `LANES` images.

    Attributes:
        init_state: Parameters to the state.
        channel: Of each channel but the last: parameters, state, pixel `[LANES, C]` and column to
            probabilities.
        last_channel: The same to probabilities and the state for `end_pixel`.
        end_pixel: Parameters, state, the whole pixel and column to the state.
        end_row: Parameters and state to the state.
    """

    init_state: Callable[..., PyTree]
    channel: list[Callable[..., Array]]
    last_channel: Callable[..., tuple[Array, PyTree]]
    end_pixel: Callable[..., PyTree]
    end_row: Callable[..., PyTree]


@functools.lru_cache(maxsize=4)
def _compiled(module: PixelRNN, device: jax.Device, lanes: int) -> _Functions:
    """Compiles the functions; see `COMPILER_OPTIONS`."""
    levels, channels = module.levels, module.image_shape[-1]

    def apply(method: str, params: PyTree, *args: Any) -> Any:
        return module.apply({"params": params}, *args, method=method)

    def step(
        channel: int, params: PyTree, state: PyTree, pixel: Array, column: Array
    ) -> tuple[Array, PyTree]:
        inputs = likelihoods.scale(pixel, levels)
        logits, state = apply("step", params, state, inputs, column)
        logits = logits[:, channel]
        if levels == 2:
            return jax.nn.sigmoid(logits[:, 0]), state
        return jax.nn.softmax(logits, axis=-1), state

    def end_pixel(params: PyTree, state: PyTree, pixel: Array, column: Array) -> PyTree:
        return apply("end_pixel", params, state, likelihoods.scale(pixel, levels), column)

    # Whatever the caller has set.
    with jax.enable_x64(False), jax.default_matmul_precision("highest"):
        sharding = jax.sharding.SingleDeviceSharding(device)

        def shapes(function: Callable[..., Any], *args: Any) -> Any:
            return jax.tree.map(
                lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding),
                jax.eval_shape(function, *args),
            )

        def compiled(function: Callable[..., Any], *args: Any, donate: bool = True) -> Any:
            jitted = jax.jit(function, donate_argnums=1 if donate else ())
            options = COMPILER_OPTIONS.get(device.platform)
            return jitted.lower(*args).compile(compiler_options=options)

        def start(params: PyTree) -> PyTree:
            return apply("init_state", params, lanes)

        params = shapes(functools.partial(evaluate.init_parameters, module), jax.random.key(0))
        state = shapes(start, params)
        pixel = shapes(lambda: jnp.zeros((lanes, channels), jnp.int32))
        column = shapes(lambda: jnp.zeros((), jnp.int32))
        arguments = params, state, pixel, column
        return _Functions(
            init_state=compiled(start, params, donate=False),
            channel=[
                compiled(lambda *args, k=k: step(k, *args)[0], *arguments, donate=False)
                for k in range(channels - 1)
            ],
            last_channel=compiled(functools.partial(step, channels - 1), *arguments),
            end_pixel=compiled(end_pixel, *arguments),
            end_row=compiled(functools.partial(apply, "end_row"), params, state),
        )


def _entropy_model(levels: int) -> Any:
    if levels == 2:
        return constriction.stream.model.Bernoulli(perfect=False)
    return constriction.stream.model.Categorical(perfect=False)


def model_digest(module: PixelRNN, params: PyTree) -> bytes:
    """Returns a digest of the function that a model computes."""
    digest = hashlib.blake2b(digest_size=8)
    digest.update(repr((module.config, module.image_shape, module.levels)).encode())
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
