"""Trains, evaluates and samples the same sizes with this package and with its peers, in one run.

    python benchmarks/peers.py --python=PEERS_PYTHON --peer=torchlake=CHECKOUT \
        --peer=pytorch_generative=CHECKOUT --peer=netket
    python benchmarks/peers.py --peer=netket pixel_cnn    # sizes whose name holds this word

A peer is named with the folder of a checkout, or alone where the interpreter of `--python` has it
installed. One that is not named, or cannot be imported, is left out by name. Each measurement is a
process of its own, with all cores, float32, and the batch below; times are medians. Every side
trains with RMSProp on the mean of -log p of binary images. The models are as equal as the peers'
options allow: no skip connections and a head as wide as the features. The column of parameters
shows what differs: kernels of ours have no masked weights, and NetKet's networks are plain masked
convolutions, without a residual block. Run nothing else beside it.
"""

import argparse
import json
import math
import platform
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

BATCH, SIDE, LAYERS = 16, 28, 7
REPEATS, LONGEST = 15, 60.0  # Steps, and seconds after which no further one is begun.
RATE = 1e-3
# Architecture, features, and the peers that have the architecture.
SIZES: dict[str, tuple[str, int, list[str]]] = {
    "diagonal_bilstm 7x16": ("diagonal_bilstm", 16, ["torchlake"]),
    "row_lstm 7x16": ("row_lstm", 16, ["torchlake"]),
    "pixel_cnn 7x16": (
        "pixel_cnn",
        16,
        ["torchlake", "pytorch_generative", "netket_fast", "netket"],
    ),
    "pixel_cnn 7x32": ("pixel_cnn", 32, ["torchlake", "pytorch_generative"]),
    "pixel_cnn 7x64": ("pixel_cnn", 64, ["torchlake", "pytorch_generative"]),
}
# Parameters, versions, and functions that train one step, evaluate a batch, and draw one.
Candidate = tuple[int, str, Callable[[], Any], Callable[[], Any], Callable[[], Any]]


def seconds(function: Callable[[], Any], *, warm_up: int) -> float:
    """Returns the median time of a call, of `REPEATS` or of as many as end in `LONGEST`."""
    for _ in range(warm_up):
        function()
    times: list[float] = []
    while len(times) < REPEATS and sum(times) < LONGEST:
        start = time.perf_counter()
        function()
        times.append(time.perf_counter() - start)
    return sorted(times)[len(times) // 2]


def ours(architecture: str, features: int) -> Candidate:
    """Builds this package's model, as the command line sets it up."""
    sys.path.insert(0, str(Path(__file__).parents[1]))
    from pixel_rnn_jax.runtime import devices

    devices.set_up_host_devices()
    import jax
    import numpy as np

    import pixel_rnn_jax as prnn
    from pixel_rnn_jax.config import OptimizerConfig
    from pixel_rnn_jax.data import Batch
    from pixel_rnn_jax.training import optimizers
    from pixel_rnn_jax.training.step import TrainState, init_state, make_train_step

    config = prnn.ModelConfig(
        architecture, layers=LAYERS, features=features, head_features=features, skip=False
    )
    bound = prnn.create(config, (SIDE, SIDE, 1), 2)
    model = bound.pixel_rnn
    optimizer = optimizers.build(OptimizerConfig(learning_rate=RATE), steps=1000)
    mesh = devices.mesh_for(BATCH)
    step = make_train_step(model, optimizer, mesh, ema_decay=0.0, micro_batches=0)

    def new_state() -> TrainState:
        return init_state(model, optimizer, jax.random.key(0), ema=False)

    state = jax.jit(new_state, out_shardings=devices.replicated(mesh))()
    images = np.random.default_rng(0).integers(2, size=(BATCH, SIDE, SIDE, 1)).astype(np.uint8)
    batch = devices.shard_batch(mesh, Batch(images))

    def train() -> None:
        nonlocal state
        state, metrics = step(state, batch, None)
        jax.block_until_ready(metrics)

    parameters = sum(leaf.size for leaf in jax.tree.leaves(bound.params))
    return (
        parameters,
        f"JAX {jax.__version__}",
        train,
        lambda: bound.log_prob(images),
        lambda: bound.sample(jax.random.key(0), BATCH),
    )


def torch_candidate(
    model: Any, nats: Callable[[Any, Any], Any], sample: Callable[[], Any]
) -> Candidate:
    """Trains a PyTorch model on `nats(model, images)`, `[B]`."""
    import torch

    images = torch.randint(2, (BATCH, 1, SIDE, SIDE)).float()
    optimizer = torch.optim.RMSprop(model.parameters(), lr=RATE)

    def train() -> None:
        optimizer.zero_grad()
        nats(model, images).mean().backward()
        optimizer.step()

    def evaluate() -> None:
        with torch.no_grad():
            nats(model, images)

    parameters = sum(parameter.numel() for parameter in model.parameters())
    version = f"PyTorch {torch.__version__}, {torch.get_num_threads()} threads"
    return parameters, version, train, evaluate, sample


def torchlake(architecture: str, features: int) -> Candidate:
    """Builds torchlake's model, and draws with its predictor, one pass for each pixel."""
    import torch
    from torchlake.image_generation.controllers import predictor_pixelcnn as predictors
    from torchlake.image_generation.models.pixelcnn import PixelCNN
    from torchlake.image_generation.models.pixelrnn import PixelRNN

    predictor = predictors.DiagonalLSTMPredictor(torch.device("cpu"))
    if architecture == "pixel_cnn":
        model: Any = PixelCNN(1, 2, features, LAYERS)
        predictor = predictors.PixelCNNPredictor(torch.device("cpu"))
    else:
        diagonal = architecture == "diagonal_bilstm"
        kind = "diag" if diagonal else "row"
        model = PixelRNN(1, 2, features, LAYERS, kind, bidirectional=diagonal)

    def nats(model: Any, images: Any) -> Any:
        logits = model(images)[:, 0]  # [B, K, H, W]
        losses = torch.nn.functional.cross_entropy(logits, images[:, 0].long(), reduction="none")
        return losses.sum((1, 2))

    return torch_candidate(
        model, nats, lambda: predictor.run(model, output_shape=(BATCH, 1, SIDE, SIDE))
    )


def pytorch_generative(architecture: str, features: int) -> Candidate:
    """Builds pytorch-generative's PixelCNN."""
    import torch
    from pytorch_generative.models import PixelCNN

    model = PixelCNN(1, 1, LAYERS, features, features)

    def nats(model: Any, images: Any) -> Any:
        logits = model(images)
        losses = torch.nn.functional.binary_cross_entropy_with_logits(
            logits, images, reduction="none"
        )
        return losses.sum((1, 2, 3))

    model(torch.zeros(BATCH, 1, SIDE, SIDE))  # It takes the shape of what it draws from a call.
    return torch_candidate(model, nats, lambda: model.sample(BATCH))


def netket(architecture: str, features: int, *, fast: bool = False) -> Candidate:
    """Builds NetKet's masked convolutions for spins on a square lattice."""
    import jax
    import jax.numpy as jnp
    import netket as nk
    import numpy as np
    import optax

    hilbert = nk.hilbert.Spin(0.5, SIDE * SIDE)
    network = nk.models.FastARNNConv2D if fast else nk.models.ARNNConv2D
    model = network(
        hilbert, layers=LAYERS, features=features, kernel_size=(2, 3), param_dtype=jnp.float32
    )
    bits = np.random.default_rng(0).integers(2, size=(BATCH, SIDE * SIDE))
    spins = jnp.asarray(2 * bits - 1, jnp.float32)
    variables = model.init(jax.random.key(0), spins)
    optimizer = optax.rmsprop(RATE)
    opt_state = optimizer.init(variables["params"])

    def log_prob(params: Any, spins: Any) -> Any:
        # A wave function: the probability is the square of its modulus.
        return 2 * model.apply(variables | {"params": params}, spins).real

    @jax.jit
    def step(params: Any, opt_state: Any) -> Any:
        gradient = jax.grad(lambda params: -log_prob(params, spins).mean())(params)
        updates, opt_state = optimizer.update(gradient, opt_state, params)
        return optax.apply_updates(params, updates), opt_state

    params = variables["params"]

    def train() -> None:
        nonlocal params, opt_state
        params, opt_state = jax.block_until_ready(step(params, opt_state))

    evaluate = jax.jit(log_prob)
    sampler = nk.sampler.ARDirectSampler(hilbert, dtype=jnp.float32)
    state = sampler.init_state(model, variables, seed=0)

    def sample() -> None:
        jax.block_until_ready(sampler.sample(model, variables, state=state, chain_length=BATCH)[0])

    return (
        sum(leaf.size for leaf in jax.tree.leaves(params)),
        f"NetKet {nk.__version__}, JAX {jax.__version__}",
        train,
        lambda: jax.block_until_ready(evaluate(params, spins)),
        sample,
    )


CANDIDATES: dict[str, Callable[[str, int], Candidate]] = {
    "ours": ours,
    "torchlake": torchlake,
    "pytorch_generative": pytorch_generative,
    "netket": netket,
    "netket_fast": lambda *size: netket(*size, fast=True),
}


def measure(candidate: str, size: str, checkout: str) -> dict[str, Any]:
    """Measures one candidate at one size in this process."""
    if checkout:
        sys.path.insert(0, checkout)
    architecture, features, _ = SIZES[size]
    parameters, version, train, evaluate, sample = CANDIDATES[candidate](architecture, features)
    return {
        "parameters": parameters,
        "version": f"Python {platform.python_version()}, {version}",
        "train": BATCH / seconds(train, warm_up=2),
        "evaluate": BATCH / seconds(evaluate, warm_up=2),
        "sample": seconds(sample, warm_up=1 if candidate == "ours" or "netket" in candidate else 0),
    }


def in_new_process(python: str, candidate: str, size: str, checkout: str) -> dict[str, Any]:
    """Measures one candidate at one size in a new process; what it prints is the reason if none."""
    command = [python, __file__, "--measure", candidate, size, checkout]
    result = subprocess.run(command, capture_output=True, text=True)
    if result.returncode:
        return {"missing": (result.stderr.strip().splitlines() or ["no message"])[-1]}
    return json.loads(result.stdout.splitlines()[-1])


def rows(
    words: list[str], python: str, checkouts: dict[str, str]
) -> Iterator[tuple[str, str, dict[str, Any]]]:
    """Measures ours, then the peers that have the architecture, size by size."""
    for size, (_, _, peers) in SIZES.items():
        if words and not any(word in size for word in words):
            continue
        yield size, "ours", in_new_process(sys.executable, "ours", size, "")
        for peer in peers:
            package = peer.removesuffix("_fast")
            if package in checkouts:
                yield size, peer, in_new_process(python, peer, size, checkouts[package])
            else:
                yield size, peer, {"missing": f"not named by --peer={package}"}


def main() -> None:
    """Prints the table."""
    if sys.argv[1:2] == ["--measure"]:
        print(json.dumps(measure(*sys.argv[2:])))
        return
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--peer", action="append", default=[], metavar="NAME[=CHECKOUT]", help="may be repeated"
    )
    parser.add_argument("--python", default=sys.executable, help="the peers' interpreter")
    parser.add_argument("words", nargs="*", metavar="WORD")
    arguments = parser.parse_args()
    checkouts = {name: path for name, _, path in (peer.partition("=") for peer in arguments.peer)}
    if unknown := set(checkouts) - set(CANDIDATES):
        parser.error(f"--peer takes torchlake, pytorch_generative and netket, got {unknown}")
    print(
        f"batch {BATCH}, {SIDE}x{SIDE}x1, {LAYERS} layers, float32; training and evaluation in "
        "images/s, the time to draw a batch in s, and ours relative to the peer\n"
        "size                  candidate           parameters  training        evaluation      "
        "drawing"
    )
    unknown_times = {"train": math.nan, "evaluate": math.nan, "sample": math.nan}
    versions, own = {}, unknown_times
    for size, candidate, result in rows(arguments.words, arguments.python, checkouts):
        if "missing" in result:
            own = unknown_times if candidate == "ours" else own
            print(f"{size:22}{candidate:20}left out: {result['missing']}", flush=True)
            continue
        versions[candidate] = result["version"]
        own = result if candidate == "ours" else own
        ratios = [
            own["train"] / result["train"],
            own["evaluate"] / result["evaluate"],
            result["sample"] / own["sample"],
        ]
        columns = [
            f"{result[name]:.{3 if name == 'sample' else 0}f} ({ratio:.3g}x)"
            for name, ratio in zip(("train", "evaluate", "sample"), ratios, strict=True)
        ]
        print(
            f"{size:22}{candidate:20}{result['parameters']:10}  "
            + "".join(f"{column:16}" for column in columns),
            flush=True,
        )
    for candidate, version in versions.items():
        print(f"{candidate}: {version}")


if __name__ == "__main__":
    main()
