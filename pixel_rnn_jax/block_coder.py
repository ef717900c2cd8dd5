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
import tqdm
from jax import Array

from pixel_rnn_jax import joint, terminal
from pixel_rnn_jax.config import ModelConfig
from pixel_rnn_jax.errors import UserError
from pixel_rnn_jax.images import Batch, value_dtype
from pixel_rnn_jax.likelihoods import ContinuousMixture
from pixel_rnn_jax.models import Model, Scale, create, scales
from pixel_rnn_jax.sample import condition_on

PyTree = Any

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
    scales, and of each scale what the one before does not give.

    Attributes:
        module: The model, in float32.
        params: Its parameters, in float32.
        device: Where it is computed.
    """

    def __init__(self, module: Model, params: PyTree):
        """Prepares to code.

        Raises:
            UserError: The model gives values no probability, or its parameters are not finite.
        """
        if not module.likelihood.discrete:
            raise UserError(
                "a continuous model gives images no probability that could be coded: use one with "
                "discrete outputs"
            )
        if module.config.plain:
            raise UserError(
                "a multi-scale model in the plain form (model.exact=false) gives images no "
                "probability that could be coded: use one in the exact form"
            )
        # What a model is computed in, and how, is no part of it.
        config = dataclasses.replace(module.config, dtype="float32", remat=False, pack=1)
        self.module = create(config, module.image_shape, module.levels)
        self.device = jax.local_devices()[0]
        floats = jax.tree.map(lambda leaf: np.asarray(leaf, np.float32), params)
        if not all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(floats)):
            raise UserError("the model has parameters that are not finite: train it again")
        self.params = jax.device_put(floats, self.device)

    def encode(self, images: np.ndarray, labels: np.ndarray | None = None) -> bytes:
        """Returns the code of `[B, H, W, C]` images, at most `LANES`, with their classes `[B]`."""
        encoder = constriction.stream.queue.RangeEncoder()
        model = _entropy_model(self.module.levels)
        if labels is not None:
            encoder.encode(labels.astype(np.int32), self._any_class())
        values = images.astype(np.int32)

        def encode(probabilities: np.ndarray, row: int, column: int, channel: int) -> np.ndarray:
            symbols = np.ascontiguousarray(values[:, row, column, channel])
            encoder.encode(symbols, model, probabilities)
            return symbols

        self._each_value(len(images), labels, encode)
        return encoder.get_compressed().astype("<u4").tobytes()

    def decode(self, code: bytes, count: int) -> Batch:
        """Returns the `[count, H, W, C]` images of a code with their classes.

        Raises:
            ValueError: This is not the code of images under these probabilities.
        """
        words = np.frombuffer(code, "<u4").astype(np.uint32)
        decoder = constriction.stream.queue.RangeDecoder(words)
        model = _entropy_model(self.module.levels)
        labels = None
        if self.module.config.classes:
            labels = decoder.decode(self._any_class(), count)
        images = np.empty((count, *self.module.image_shape), value_dtype(self.module.levels))

        def decode(probabilities: np.ndarray, row: int, column: int, channel: int) -> np.ndarray:
            try:
                symbols = decoder.decode(model, probabilities)
            except AssertionError as error:  # How constriction says that this cannot be.
                raise ValueError(str(error)) from error
            images[:, row, column, channel] = symbols
            return symbols

        self._each_value(count, labels, decode)
        return Batch(images, labels)

    def _any_class(self) -> Any:
        return constriction.stream.model.Uniform(self.module.config.classes)

    def _each_value(
        self, count: int, labels: np.ndarray | None, code: Callable[..., np.ndarray]
    ) -> None:
        """Calls `code` for each value in turn, with its distribution given all before it.

        Args:
            count: Number of images.
            labels: `[count]` classes, for a model with classes.
            code: (probabilities `[count, K]` (K = 2: `[count]`, those of the value 1), row, column,
                channel) to the values, `[count]`; row and column are those of the whole image.
        """
        if labels is not None:
            labels = np.pad(labels.astype(np.int32), (0, LANES - count))
        chain = scales(self.module)
        rows = sum(scale.network.image_shape[0] for scale in chain)
        progress = terminal.bar(range(rows), rows, "coding", "row")
        coarse = None
        with progress:
            for number in range(len(chain)):
                coarse = self._each_value_of(number, count, labels, coarse, code, progress)

    def _each_value_of(
        self,
        number: int,
        count: int,
        labels: np.ndarray | None,
        coarse: np.ndarray | None,
        code: Callable[..., np.ndarray],
        progress: "tqdm.tqdm[Any]",
    ) -> np.ndarray:
        """Does the work of `_each_value` for one scale, and returns its images `[LANES, ...]`."""
        scale = scales(self.module)[number]
        height, width, channels = scale.network.image_shape
        params = scale.select(self.params)
        functions = _compiled(self.module, number, self.device, LANES)
        state, condition = functions.start(params, *self._put(labels, coarse))
        images = np.zeros((LANES, height, width, channels), np.int32)
        if coarse is not None:
            images[:, scale.given] = coarse.reshape(LANES, -1, channels)
        columns = self._put(*np.arange(width, dtype=np.int32))
        for row, here in enumerate(self._put(*np.arange(height, dtype=np.int32))):
            contexts = functions.contexts(params, condition, here)
            for column in range(width):
                pixel = images[:, row, column]
                known = scale.given[row, column]
                for channel in range(channels):
                    last = channel == channels - 1
                    if known and not last:
                        continue
                    # A copy: JAX may still be reading what is filled in next.
                    place = (*self._put(pixel.copy()), columns[column], contexts)
                    if last:
                        result, state = functions.last_channel(params, state, *place)
                    else:
                        result = functions.channel[channel](params, state, *place)
                    if not known:
                        probabilities = np.asarray(result)[:count]
                        at = scale.stride * row, scale.stride * column, channel
                        pixel[:count, channel] = code(probabilities, *at)
                place = (*self._put(pixel.copy()), columns[column])
                state = functions.end_pixel(params, state, *place)
            state = functions.end_row(params, state, contexts)
            progress.update()
        return images

    def _put(self, *arrays: Any) -> Any:
        return jax.device_put(arrays, self.device)


@dataclass(frozen=True)
class _Functions:
    """The incremental form of one scale, compiled for `LANES` images.

    Attributes:
        start: Parameters, classes and the image of the scale before (None where there are none) to
            the state and the condition.
        contexts: Parameters, condition and row to the contexts of the row.
        channel: Of each channel but the last: parameters, state, pixel `[LANES, C]`, column and
            contexts to probabilities.
        last_channel: The same to probabilities and the state for `end_pixel`.
        end_pixel: Parameters, state, the whole pixel and column to the state.
        end_row: Parameters, state and contexts to the state.
    """

    start: Callable[..., tuple[PyTree, Array | None]]
    contexts: Callable[..., PyTree]
    channel: list[Callable[..., Array]]
    last_channel: Callable[..., tuple[Array, PyTree]]
    end_pixel: Callable[..., PyTree]
    end_row: Callable[..., PyTree]


@functools.lru_cache(maxsize=16)
def _compiled(module: Model, number: int, device: jax.Device, lanes: int) -> _Functions:
    """Compiles the functions of one scale; see `COMPILER_OPTIONS`."""
    scale = scales(module)[number]
    network, likelihood = scale.network, scale.network.likelihood
    channels, levels = network.image_shape[-1], network.levels
    assert not isinstance(likelihood, ContinuousMixture)

    def apply(method: str, params: PyTree, *args: Any) -> Any:
        return network.apply({"params": params}, *args, method=method)

    def step(
        channel: int, params: PyTree, state: PyTree, pixel: Array, column: Array, contexts: PyTree
    ) -> tuple[Array, PyTree]:
        inputs = likelihood.inputs(pixel)
        outputs, state = apply("step", params, state, inputs, column, contexts)
        logits = likelihood.logits(outputs[:, channel])
        if levels == 2:
            return jax.nn.sigmoid(logits[:, 0]), state
        return jax.nn.softmax(logits, axis=-1), state

    def end_pixel(params: PyTree, state: PyTree, pixel: Array, column: Array) -> PyTree:
        return apply("end_pixel", params, state, likelihood.inputs(pixel), column)

    # Whatever the caller has set.
    with jax.enable_x64(False), jax.default_matmul_precision("highest"):
        sharding = jax.sharding.SingleDeviceSharding(device)

        def shapes(function: Callable[..., Any], *args: Any) -> Any:
            return jax.tree.map(
                lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding),
                jax.eval_shape(function, *args),
            )

        def compiled(function: Callable[..., Any], *args: Any, donate: bool = False) -> Any:
            jitted = jax.jit(function, donate_argnums=1 if donate else ())
            options = COMPILER_OPTIONS.get(device.platform)
            return jitted.lower(*args).compile(compiler_options=options)

        def start(params: PyTree, labels: Any, coarse: Any) -> tuple[PyTree, Array | None]:
            condition = condition_on(network, params, labels, coarse)
            return apply("init_state", params, lanes), condition

        def contexts_of(params: PyTree, condition: Array | None, row: Array) -> PyTree:
            here = None if condition is None else condition[:, row]
            return apply("contexts", params, here)

        whole = shapes(functools.partial(joint.init_parameters, module), jax.random.key(0))
        params = scale.select(whole)
        integer = shapes(lambda: jnp.zeros((), jnp.int32))
        pixel = shapes(lambda: jnp.zeros((lanes, channels), jnp.int32))
        labels, coarse = shapes(functools.partial(_inputs, module, number, lanes))
        state, condition = shapes(start, params, labels, coarse)
        contexts = shapes(contexts_of, params, condition, integer)
        arguments = params, state, pixel, integer, contexts
        return _Functions(
            start=compiled(start, params, labels, coarse),
            contexts=compiled(contexts_of, params, condition, integer),
            channel=[
                compiled(lambda *args, k=k: step(k, *args)[0], *arguments)
                for k in range(channels - 1)
            ],
            last_channel=compiled(functools.partial(step, channels - 1), *arguments, donate=True),
            end_pixel=compiled(end_pixel, *arguments[:-1], donate=True),
            end_row=compiled(
                functools.partial(apply, "end_row"), params, state, contexts, donate=True
            ),
        )


def _inputs(module: Model, number: int, lanes: int) -> tuple[Array | None, Array | None]:
    """Returns zeros in the shapes of the classes and of the image before a scale, or None."""
    labels = jnp.zeros(lanes, jnp.int32) if module.config.classes else None
    if number == 0:
        return labels, None
    before: Scale = scales(module)[number - 1]
    return labels, jnp.zeros((lanes, *before.network.image_shape), jnp.int32)


def _entropy_model(levels: int) -> Any:
    if levels == 2:
        return constriction.stream.model.Bernoulli(perfect=False)
    return constriction.stream.model.Categorical(perfect=False)


def model_digest(module: Model, params: PyTree) -> bytes:
    """Returns a digest of the function that a model computes."""
    digest = hashlib.blake2b(digest_size=8)
    # Without the defaults: a field that a later version adds leaves the digest as it was.
    default = dataclasses.asdict(ModelConfig())
    fields = dataclasses.asdict(module.config).items()
    said = sorted(item for item in fields if item[1] != default[item[0]])
    digest.update(repr((said, module.image_shape, module.levels)).encode())
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
