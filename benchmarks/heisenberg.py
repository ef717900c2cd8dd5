"""Trains open squares of 4x4, 6x6 and 10x10 Heisenberg spins, each from the parameters before.

    python benchmarks/heisenberg.py heisenberg.msgpack

Energies are of Pauli matrices, total Sz = 0 with Marshall's sign. A killed run goes on from the
last step in the file, with new samples. A stage ends with the energy of the mean over symmetries.
"""

import time
from pathlib import Path
from typing import Any

import jax
import netket as nk
import optax
import timing
from flax import serialization

import pixel_rnn_jax as prnn
from pixel_rnn_jax.system import files
from pixel_rnn_jax.wave_function import DirectSampler, WaveFunction

ALL = "rotations", "reflections", "flip"
CONFIG = prnn.ModelConfig("linear_rnn", 2, 16, head_features=16, first_kernel=9)
# Sides, steps, samples of a step, largest rates, and symmetries in training.
STAGES: Any = [(4, 400, 512, 0.05, ()), (6, 1000, 512, 0.03, ()), (6, 400, 256, 0.01, ALL)]
STAGES += [(6, 400, 256, 0.03, ALL), (10, 800, 512, 0.02, ()), (10, 160, 256, 0.01, ALL)]
SAMPLES, LOWEST = 8192, {4: -36.756828, 6: -86.9071442, 10: -251.46244}  # The last by QMC.


def state_of(side: int, samples: int, symmetries: Any, record: Any) -> tuple[Any, Any]:
    """Returns the Hamiltonian and a variational state with the parameters of the record."""
    hilbert, graph = nk.hilbert.Spin(0.5, side**2, total_sz=0), nk.graph.Grid([side] * 2, pbc=False)
    psi = WaveFunction(hilbert, CONFIG, (side, side), symmetries=symmetries)
    sizes = dict(n_samples=samples, chunk_size=4096, seed=record["step"])
    state = nk.vqs.MCState(DirectSampler(hilbert), psi, **sizes)
    state.parameters = record["parameters"] or state.parameters
    return nk.operator.Heisenberg(hilbert, graph, sign_rule=True), state


def save(path: Path, record: dict[str, Any]) -> None:
    """Writes the record, which has the parameters of each size as well."""
    with files.atomic_write(path) as file:
        file.write(serialization.msgpack_serialize(record))


def main(arguments: list[str] | None = None) -> None:
    """Takes the steps that are left."""
    flags = timing.parser(__doc__)
    flags.add_argument("file", type=Path, help="is written every 20 steps")
    path = flags.parse_args(arguments).file
    nk.config.netket_experimental_packed_kernel = True  # Leaves out what pads the neighbours.
    record: dict[str, Any] = {"stage": 0, "step": 0, "core_s": 0.0, "parameters": None}
    if path.exists():
        record = serialization.msgpack_restore(path.read_bytes())
    for side, steps, samples, rate, symmetries in STAGES[record["stage"] :]:
        hamiltonian, state = state_of(side, samples, symmetries, record)
        rates = optax.warmup_cosine_decay_schedule(rate / 20, rate, steps // 10, steps, rate / 20)
        rates = rates(jax.numpy.arange(steps))[record["step"] :]
        solver = dict(diag_shift=0.01, use_ntk=True, on_the_fly=False, chunk_size_bwd=64)
        sgd = optax.sgd(lambda step, rates=rates: rates[step])
        driver = nk.driver.VMC_SR(hamiltonian, sgd, variational_state=state, **solver)
        while record["step"] < steps:
            start, log = time.process_time(), nk.logging.RuntimeLog()
            driver.run(20, out=log, show_progress=False)
            record |= {"step": record["step"] + 20, "parameters": jax.device_get(state.parameters)}
            record["core_s"] += time.process_time() - start
            save(path, record)
            energies = log.data["Energy"].Mean.real
            print(f"{side}x{side}, {record['step']:5}: {energies.mean():.4f}", flush=True)
        hamiltonian, state = state_of(side, SAMPLES, ALL, record)
        energy = state.expect(hamiltonian)
        mean, variance = energy.mean.real, energy.variance
        print(
            f"{side}x{side}: {mean:.4f} ± {(variance / SAMPLES) ** 0.5:.4f}, variance "
            f"{variance:.4f}, V-score {side**2 * variance / mean**2:.1e}, error "
            f"{1 - mean / LOWEST[side]:.1e}, {SAMPLES:,} samples, {state.n_parameters:,} "
            f"parameters, {record['core_s'] / 3600:.2f} core-hours of training"
        )
        record |= {"stage": record["stage"] + 1, "step": 0, f"{side}x{side}": record["parameters"]}
        save(path, record)


if __name__ == "__main__":
    main()
