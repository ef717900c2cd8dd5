"""Wave functions of spins and bosons on a grid, for NetKet (the extra `netket`).

A model of images is an ansatz: a configuration σ of H · W sites is an image x of one channel, its
local states the levels in their order, and log ψ(σ) = ½ log p(x) + iφ(σ). Samples are exact and
independent. If the Hilbert space has a fixed sum, total magnetisation or particle number, so have
the images (`ModelConfig.total`).
"""

import dataclasses
import functools
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import Array
from netket.hilbert import HomogeneousHilbert
from netket.hilbert.constraint import SumConstraint
from netket.jax.sharding import shard_along_axis
from netket.sampler import Sampler, SamplerState

from pixel_rnn_jax.model.config import ModelConfig
from pixel_rnn_jax.model.pixel_rnn import PixelRNN
from pixel_rnn_jax.system.errors import UserError


class WaveFunction(nn.Module):
    """An autoregressive wave function: log ψ(σ) = ½ log p(σ) + iφ(σ).

    Its parameters do not depend on H and W: a small grid's can start a larger one. The LSTMs have
    derivatives in reverse mode alone: use NetKet's `VMC_SR` or `QGTJacobianDense`. `QGTOnTheFly`
    needs `jvp`, which only a PixelCNN has.

    Attributes:
        hilbert: NetKet's `Spin` or `Fock`, or another space of equal sites, with no constraint or
            a fixed sum.
        config: The architecture, with a discrete output; `total` is read from `hilbert`.
        shape: (H, W); site i is in row i // W.
        phase: A module from states `[..., N]` to φ, `[...]`; None for a positive wave function.

    Raises:
        UserError: On first use, if the space has another constraint, other than H W sites or one
            state, or the output is a density.

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

    @functools.cached_property
    def pixel_rnn(self) -> PixelRNN:
        """The distribution |ψ|², of images `[B, H, W, 1]`."""
        hilbert, config, (height, width) = self.hilbert, self.config, self.shape
        if height * width != hilbert.size:
            raise UserError(f"hilbert must have {height} * {width} sites, got {hilbert.size}")
        if hilbert.constrained:
            if not isinstance(hilbert.constraint, SumConstraint):
                raise UserError(f"hilbert must have no constraint but a sum, got {hilbert}")
            first, second, *_ = hilbert.local_states  # Spins have 1, -1.
            rest = hilbert.constraint.sum_value - hilbert.size * first
            total = round(rest / (second - first))
            if not total or config.total:
                raise UserError(f"hilbert must have several states, config no total, got {total}")
            config = dataclasses.replace(config, total=total)
        model = PixelRNN(config, (height, width, 1), hilbert.local_size)
        model.discrete_likelihood()  # Refuses densities.
        return model

    @nn.compact
    def __call__(self, states: Array) -> Array:
        """Returns log ψ of states `[..., N]`, `[...]`."""
        params = self.param("pixel_rnn", self.pixel_rnn.init)
        images = self.hilbert.states_to_local_indices(states).reshape(-1, *self.shape, 1)
        log_psi = self.pixel_rnn.log_prob(params, images).reshape(states.shape[:-1]) / 2
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
        images, log_probs = model.pixel_rnn.sample_and_log_prob(params, key, count)
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
