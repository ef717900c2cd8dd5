"""Trains, evaluates and samples the same sizes with this package and with its peers, in one run.

    python benchmarks/peers.py --python=PEERS_PYTHON --peer=torchlake=CHECKOUT \
        --peer=pytorch_generative=CHECKOUT --peer=netket
    python benchmarks/peers.py --peer=netket pixel_cnn    # sizes whose name holds this word

A peer is named with the folder of a checkout, or alone where the interpreter of `--python` has it
installed; one that cannot be imported is left out by name. Each is a process of its own, with all
cores, float32 and the batch below; all of a size are timed in turn, and times are medians. Every
side trains with RMSProp on the mean of -log p of binary images. The models are as equal as the
peers' options allow: no skip connections and a head as wide as the features. Ours have no masked
weights. NetKet's are plain masked convolutions, as `plain_cnn` is. Run nothing else beside it.
"""

import contextlib
import importlib
import sys
from collections.abc import Callable
from typing import Any

import timing
from timing import Candidate, Worker, in_turn, timer

BATCH, SIDE, LAYERS = 16, 28, 7
RATE = 1e-3
# Architecture, features, and the peers that have the architecture.
SIZES: dict[str, tuple[str, int, list[str]]] = {
    "diagonal_bilstm 7x16": ("diagonal_bilstm", 16, ["torchlake"]),
    "row_lstm 7x16": ("row_lstm", 16, ["torchlake"]),
    "plain_cnn 7x16": ("plain_cnn", 16, ["netket"]),
    "pixel_cnn 7x16": ("pixel_cnn", 16, ["torchlake", "pytorch_generative", "netket"]),
    "pixel_cnn 7x32": ("pixel_cnn", 32, ["torchlake", "pytorch_generative"]),
    "pixel_cnn 7x64": ("pixel_cnn", 64, ["torchlake", "pytorch_generative"]),
}
KINDS = "training", "evaluation", "drawing"
# Parameters, versions, and functions that train one step, evaluate a batch, and draw one.
Implementation = tuple[int, str, Callable[[], Any], Callable[[], Any], Callable[[], Any]]


def ours(architecture: str, features: int) -> Implementation:
    """Builds this package's model, as the command line sets it up."""
    from pixel_rnn_jax.system import devices

    devices.set_up_host_devices()
    import jax
    import numpy as np
    from speed import prepare

    import pixel_rnn_jax as prnn

    fields: dict[str, Any] = dict(head_features=features, skip=False)
    if architecture == "plain_cnn":
        importlib.import_module(architecture)  # Which registers it.
        fields = dict(head="last", first_kernel=3)
        features //= 2  # Its stream has 2h, and nothing else does.
    config = prnn.ModelConfig(architecture, layers=LAYERS, features=features, **fields)
    model = prnn.create(config, (SIDE, SIDE, 1), levels=2)
    step = prepare(model.pixel_rnn, BATCH, devices.mesh_for(BATCH), ema_decay=0.0)
    images = np.asarray(step.batch.images)
    return (
        sum(leaf.size for leaf in jax.tree.leaves(model.params)),
        f"JAX {jax.__version__}",
        step.run,
        lambda: jax.block_until_ready(model.log_prob(images)),
        lambda: jax.block_until_ready(model.sample(jax.random.key(0), BATCH)),
    )


def torch_implementation(
    model: Any, nats: Callable[[Any, Any], Any], sample: Callable[[], Any]
) -> Implementation:
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


def torchlake(architecture: str, features: int) -> Implementation:
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

    return torch_implementation(
        model, nats, lambda: predictor.run(model, output_shape=(BATCH, 1, SIDE, SIDE))
    )


def pytorch_generative(architecture: str, features: int) -> Implementation:
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
    return torch_implementation(model, nats, lambda: model.sample(BATCH))


def netket(architecture: str, features: int) -> Implementation:
    """Builds NetKet's fast masked convolutions for spins on a square lattice."""
    import jax
    import jax.numpy as jnp
    import netket as nk
    import numpy as np
    import optax

    hilbert = nk.hilbert.Spin(0.5, SIDE * SIDE)
    model = nk.models.FastARNNConv2D(
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


IMPLEMENTATIONS = {build.__name__: build for build in (ours, torchlake, pytorch_generative, netket)}


def build(*, name: str, size: str, checkout: str, seconds: float) -> Candidate:
    """Builds one implementation of one size; without timers if it cannot be imported."""
    if checkout:
        sys.path.insert(0, checkout)
    architecture, features, _ = SIZES[size]
    try:
        parameters, version, *functions = IMPLEMENTATIONS[name](architecture, features)
    except ImportError as error:
        return Candidate({}, {"missing": str(error)})
    timers = {
        # Drawing with PyTorch compiles nothing and may take minutes.
        kind: timer(function, seconds, warm_up=0 if kind == "drawing" and "torch" in name else 2)
        for kind, function in zip(KINDS, functions, strict=True)
    }
    version = f"Python {timing.PYTHON}, {version}"
    return Candidate(timers, {"parameters": parameters, "version": version})


def main(arguments: list[str] | None = None) -> None:
    """Prints the table."""
    flags = timing.parser(__doc__, words=True)
    timing.add_flags(flags)
    flags.add_argument("--peer", action="append", default=[], metavar="NAME[=CHECKOUT]")
    flags.add_argument("--python", default=sys.executable, help="the peers' interpreter")
    options = flags.parse_args(arguments)
    checkouts = {name: path for name, _, path in (peer.partition("=") for peer in options.peer)}
    peers = set(IMPLEMENTATIONS) - {"ours"}
    if unknown := set(checkouts) - peers:
        flags.error(f"--peer takes {', '.join(peers)}, got {', '.join(unknown)}")
    print(
        f"batch {BATCH}, {SIDE}x{SIDE}x1, {LAYERS} layers, float32; training and evaluation in "
        "images/s, the time to draw a batch in s, and how many times as fast ours is\n"
        f"{'size':22}{'candidate':20}parameters  " + "".join(f"{kind:16}" for kind in KINDS)
    )
    versions = {}
    for size in timing.chosen(SIZES, options.words):
        with contextlib.ExitStack() as stack:
            workers = {}
            for name in ("ours", *(peer for peer in SIZES[size][2] if peer in checkouts)):
                python = sys.executable if name == "ours" else options.python
                what = {"name": name, "size": size, "checkout": checkouts.get(name, "")}
                worker = Worker(__file__, python, **what, seconds=options.seconds)
                workers[name] = stack.enter_context(worker)
            timers = {
                (name, kind): measure
                for name, worker in workers.items()
                for kind, measure in worker.timers.items()
            }
            seconds = in_turn(timers, options.rounds)
        for name, worker in workers.items():
            if "missing" in worker.facts:
                print(f"{size:22}{name:20}left out: {worker.facts['missing']}", flush=True)
                continue
            versions[name] = worker.facts["version"]
            columns = []
            for kind in KINDS:
                time = seconds[name, kind]
                value = f"{time:.3f}" if kind == "drawing" else f"{BATCH / time:.0f}"
                columns.append(f"{value} ({time / seconds['ours', kind]:.3g}x)")
            row = "".join(f"{column:16}" for column in columns)
            print(f"{size:22}{name:20}{worker.facts['parameters']:10}  {row}", flush=True)
    for name, version in versions.items():
        print(f"{name}: {version}")


if __name__ == "__main__":
    timing.run(main, build)
