"""Wave functions of spins and bosons on a grid, for NetKet (the extra `netket`).

A model of images is an ansatz: a configuration σ of H · W sites is an image x of one channel, its
local states the levels in their order, and log ψ(σ) = ½ log p(x) + iφ(σ). Samples are exact and
independent. If the Hilbert space has a fixed sum, total magnetisation or particle number, so have
the images (`ModelConfig.total`). Given symmetries, |ψ|² is the mean of p over their group.
"""

import dataclasses
import functools
import math
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from netket.hilbert import HomogeneousHilbert
from netket.hilbert.constraint import SumConstraint
from netket.jax.sharding import shard_along_axis
from netket.sampler import Sampler, SamplerState

from pixel_rnn_jax.model.config import ModelConfig
from pixel_rnn_jax.model.pixel_rnn import PixelRNN
from pixel_rnn_jax.system import tuning
from pixel_rnn_jax.system.errors import UserError


class WaveFunction(nn.Module):
    """An autoregressive wave function: log ψ(σ) = ½ log p(σ) + iφ(σ).

    Its parameters do not depend on H and W: a small grid's can start a larger one. Recurrent layers
    have derivatives in reverse mode alone: use NetKet's `VMC_SR` or `QGTJacobianDense`, since
    `QGTOnTheFly` needs `jvp`.

    Attributes:
        hilbert: NetKet's `Spin` or `Fock`, or another space of equal sites, with no constraint or
            a fixed sum.
        config: The architecture, with a discrete output; `total` is read from `hilbert`.
        shape: (H, W); site i is in row i // W.
        phase: A module from states `[..., N]` to φ, `[...]`; None for a positive wave function.
        symmetries: "rotations" and "reflections" of the grid, and "flip", which takes each local
            state to the opposite one. The density of σ is the mean of p(gσ) over the G elements of
            the group that they generate; it costs G log-probabilities, and φ is not symmetrised.

    Raises:
        UserError: On first use, if the space has another constraint, other than H W sites or one
            state, the output is a density, or a symmetry is unknown or leaves the space.

    >>> hilbert = nk.hilbert.Spin(0.5, 16, total_sz=0)
    >>> psi = WaveFunction(hilbert, prnn.ModelConfig(layers=1, features=4), (4, 4))
    >>> state = nk.vqs.MCState(DirectSampler(hilbert), psi, n_samples=64)
    >>> int(abs(state.samples.sum(axis=-1)).max())
    0
    """

    hilbert: HomogeneousHilbert
    config: ModelConfig
    shape: tuple[int, int]
    phase: nn.Module | None = None
    symmetries: tuple[str, ...] = ()

    @functools.cached_property
    def pixel_rnn(self) -> PixelRNN:
        """The distribution |ψ|², of images `[B, H, W, 1]`."""
        hilbert, config, (height, width) = self.hilbert, self.config, self.shape
        constraint = hilbert.constraint if hilbert.constrained else None
        equal = isinstance(hilbert, HomogeneousHilbert) and hilbert.size == height * width
        if not equal or not isinstance(constraint, SumConstraint | None):
            rule = f"be of {height} * {width} equal sites, with no constraint but a sum"
            raise UserError(f"hilbert must {rule}, got {hilbert}")
        if constraint is not None:
            first, second, *_ = hilbert.local_states  # Spins have 1, -1.
            total = round((constraint.sum_value - hilbert.size * first) / (second - first))
            if not total or config.total:
                raise UserError(f"hilbert must have several states, config no total, got {total}")
            config = dataclasses.replace(config, total=total)
        model = PixelRNN(config, (height, width, 1), hilbert.local_size)
        model.discrete_likelihood()  # Refuses densities.
        return model

    @functools.cached_property
    def _group(self) -> tuple[np.ndarray, np.ndarray]:
        """For each element the sites from which it takes the levels, `[G, N]`, and if it flips."""
        if unknown := set(self.symmetries) - {"rotations", "reflections", "flip"}:
            raise UserError(f"symmetries must be rotations, reflections, flip, got {unknown}")
        height, width = self.shape
        grids = [np.arange(height * width).reshape(self.shape)]
        if "rotations" in self.symmetries:
            grids = [np.rot90(grids[0], k) for k in range(0, 4, 1 if height == width else 2)]
        if "reflections" in self.symmetries:
            grids = [grid[::i, ::j] for grid in grids for i in (1, -1) for j in (1, -1)]
        sites = np.unique(np.reshape(grids, (len(grids), -1)), axis=0)
        flips, total = int("flip" in self.symmetries) + 1, self.pixel_rnn.config.total
        if flips == 2 and total and 2 * total != self.hilbert.size * (self.pixel_rnn.levels - 1):
            raise UserError(f"symmetries: a flip changes the sum, which {self.hilbert} fixes")
        return np.tile(sites, (flips, 1)), np.arange(flips).repeat(len(sites)) > 0

    def _apply(self, images: Array, sites: Any, flips: Any) -> Array:
        """Applies elements of the group, `[B, G, N]` and `[B, G]`, to images: `[B, G, N]`."""
        levels = images.reshape(len(images), 1, -1)
        moved = jnp.take_along_axis(levels, sites, axis=-1)
        return jnp.where(flips[..., None], self.pixel_rnn.levels - 1 - moved, moved)

    def log_density(self, params: Any, images: Array) -> Array:
        """Returns the log-densities of images `[B, H, W, 1]`, `[B]`, some at a time on CPUs."""
        sites, flips = self._group
        every = self._apply(images, sites[None], flips[None])
        rows, model = every.reshape(-1, *self.shape, 1), self.pixel_rnn
        parts = tuning.parts(len(rows), every.shape[-1], recurrent=model.recurrent)
        log_probs = tuning.in_parts(functools.partial(model.log_prob, params), parts, rows)
        log_probs = log_probs.reshape(every.shape[:2])
        return jax.nn.logsumexp(log_probs, axis=1) - math.log(every.shape[1])

    def draw(self, params: Any, key: Array, count: int) -> tuple[Array, Array]:
        """Draws images `[count, H, W, 1]`, and returns their log-densities, `[count]`."""
        if not self.symmetries:
            return self.pixel_rnn.sample_and_log_prob(params, key, count)
        key, choice_key = jax.random.split(key)
        images, (sites, flips) = self.pixel_rnn.sample(params, key, count), self._group
        elements = jax.random.randint(choice_key, (count, 1), 0, len(sites))
        chosen = jnp.asarray(sites)[elements], jnp.asarray(flips)[elements]
        images = self._apply(images, *chosen).reshape(images.shape)
        return images, self.log_density(params, images)

    @nn.compact
    def __call__(self, states: Array) -> Array:
        """Returns log ψ of states `[..., N]`, `[...]`."""
        params = self.param("pixel_rnn", self.pixel_rnn.init)
        if states.shape[-1] != self.hilbert.size:
            raise UserError(f"states must be of {self.hilbert.size} sites, got {states.shape}")
        images = self.hilbert.states_to_local_indices(states).reshape(-1, *self.shape, 1)
        log_psi = self.log_density(params, images).reshape(states.shape[:-1]) / 2
        return log_psi if self.phase is None else log_psi + 1j * self.phase(states)


class DirectSampler(Sampler):
    """Exact, independent samples of a `WaveFunction`: `DirectSampler(hilbert, dtype=None)`."""

    def __init__(self, hilbert: HomogeneousHilbert, dtype: Any = None):
        """Has no `machine_pow`: the samples are of p = |ψ|²."""
        super().__init__(hilbert, machine_pow=2, dtype=dtype)

    @property
    def is_exact(self) -> bool:
        """Samples are exact and independent."""
        return True

    def _init_state(self, model: Any, variables: Any, key: Array) -> "_State":
        return _State(key)

    def _reset(self, model: Any, variables: Any, state: Any) -> Any:
        return state

    @functools.partial(
        jax.jit, static_argnames=("model", "chain_length", "return_log_probabilities")
    )
    def _sample_chain(
        self,
        model: WaveFunction,
        variables: Any,
        state: Any,
        chain_length: int,
        return_log_probabilities: bool = False,
    ) -> tuple[Any, Any]:
        if getattr(model, "hilbert", None) != self.hilbert:
            raise UserError(f"a WaveFunction of {self.hilbert} is drawn, got {model}")
        count = self.n_batches * chain_length
        params, (key, new_key) = variables["params"]["pixel_rnn"], jax.random.split(state.key)
        images, log_probs = model.draw(params, key, count)
        levels = images.reshape(self.n_batches, chain_length, -1).astype(jnp.int32)
        states = self.hilbert.local_indices_to_states(levels, dtype=self.dtype)
        states = shard_along_axis(states, axis=0)
        log_probs = shard_along_axis(log_probs.reshape(self.n_batches, chain_length), axis=0)
        result = (states, log_probs) if return_log_probabilities else states
        return result, state.replace(key=new_key)


class _State(SamplerState):
    key: Array

    def __init__(self, key: Array):
        self.key = key
        super().__init__()
