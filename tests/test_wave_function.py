"""The ansatz for NetKet: normalised, exact samples in constrained spaces, and its drivers."""

import doctest
import math

import jax
import numpy as np
import optax
import pytest

import pixel_rnn_jax as prnn

pytestmark = pytest.mark.usefixtures("float64")
ALL = "rotations", "reflections", "flip"
CONFIG = prnn.ModelConfig("pixel_cnn", layers=1, features=4, head_features=5, first_kernel=3)
SPACES = {
    "spins": lambda hilbert: hilbert.Spin(0.5, 6),
    "magnetisation": lambda hilbert: hilbert.Spin(0.5, 6, total_sz=1),
    "magnetisation of spins 1": lambda hilbert: hilbert.Spin(1, 6, total_sz=0),
    "particles": lambda hilbert: hilbert.Fock(2, 6, n_particles=5),
}


@pytest.fixture
def float64(x64):
    with jax.numpy_rank_promotion("allow"):  # NetKet promotes.
        yield


@pytest.fixture(scope="module")
def netket():
    """NetKet, which when imported sets x64 and a mesh of all devices for the whole process."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("NETKET_ENABLE_X64", "0")
        patch.setenv("NETKET_SHARDING", "0")
        return pytest.importorskip("netket")


def state_of(netket, hilbert, config=CONFIG, symmetries=(), *, count=4000, phase=None):
    from pixel_rnn_jax.wave_function import DirectSampler, WaveFunction

    psi = WaveFunction(hilbert, config, (2, 3), phase, symmetries)
    return netket.vqs.MCState(DirectSampler(hilbert), psi, n_samples=count, seed=1)


def drawn(state, count):
    """Draws states, and returns their numbers and log-probabilities."""
    options = dict(state=state.sampler_state, chain_length=count, return_log_probabilities=True)
    (samples, log_probs), _ = state.sampler.sample(state.model, state.variables, **options)
    return state.hilbert.states_to_numbers(np.asarray(samples)[0]), log_probs[0]


@pytest.mark.slow
def test_the_example_runs(netket):
    from pixel_rnn_jax import wave_function

    names = vars(wave_function) | {"nk": netket, "prnn": prnn}
    text = wave_function.WaveFunction.__doc__
    example = doctest.DocTestParser().get_doctest(text, names, "WaveFunction", None, 0)
    assert example.examples and not doctest.DocTestRunner().run(example).failed


@pytest.mark.parametrize(
    "name",
    [pytest.param(name, marks=() if name == "particles" else pytest.mark.slow) for name in SPACES],
)
def test_states_of_the_space_have_the_norm_one_and_samples_their_probability(name, netket):
    hilbert = SPACES[name](netket.hilbert)
    state = state_of(netket, hilbert, phase=netket.models.RBM(param_dtype=float))
    log_psi = np.asarray(state.log_value(hilbert.all_states()))
    chances = np.exp(2 * log_psi.real)
    assert chances.sum() == pytest.approx(1, rel=1e-5) and log_psi.imag.std() > 0
    numbers, log_probs = drawn(state, 4000)
    np.testing.assert_allclose(2 * log_psi.real[numbers], log_probs, rtol=1e-4)
    counts = np.bincount(numbers, minlength=hilbert.n_states)
    assert (np.abs(counts - 4000 * chances) < 5 * np.sqrt(4000 * chances) + 5).all()


def move(name, grids):
    if name == "flip":
        return -grids
    turns = 1 if grids.shape[1] == grids.shape[2] else 2
    return np.rot90(grids, turns, (1, 2)) if name == "rotations" else grids[:, ::-1]


@pytest.mark.parametrize(
    "shape, total_sz, symmetries, size",
    [
        ((2, 2), 0, ALL, 16),
        pytest.param((3, 3), None, ALL, 16, marks=pytest.mark.slow),
        pytest.param((2, 3), 1, ("reflections",), 4, marks=pytest.mark.slow),
        pytest.param((2, 3), 0, ("rotations", "flip"), 4, marks=pytest.mark.slow),
    ],
)
def test_symmetric_states(shape, total_sz, symmetries, size, netket):
    from pixel_rnn_jax.wave_function import DirectSampler, WaveFunction

    hilbert = netket.hilbert.Spin(0.5, math.prod(shape), total_sz=total_sz)
    plain, psi = (WaveFunction(hilbert, CONFIG, shape, symmetries=s) for s in ((), symmetries))
    state = netket.vqs.MCState(DirectSampler(hilbert), psi, n_samples=20_000, seed=1)
    states = np.asarray(hilbert.all_states())
    chances = np.exp(2 * np.asarray(state.log_value(states)))
    log_psi, grids = jax.jit(plain.apply)(state.variables, states), states.reshape(-1, *shape)
    base = np.exp(2 * np.asarray(log_psi))
    assert chances.sum() == pytest.approx(1, rel=1e-5) and len(psi._group[0]) == size
    for name in symmetries:
        numbers = hilbert.states_to_numbers(move(name, grids).reshape(states.shape))
        np.testing.assert_allclose(chances[numbers], chances, rtol=1e-6)
        assert abs(base[numbers] - base).max() > 1e-3
    numbers, log_probs = drawn(state, 20_000)
    np.testing.assert_allclose(np.exp(log_probs), chances[numbers], rtol=1e-4)
    counts = np.bincount(numbers, minlength=hilbert.n_states)
    statistic = ((counts - 20_000 * chances) ** 2 / (20_000 * chances)).sum()
    assert abs(statistic - len(states)) < 5 * np.sqrt(2 * len(states))


@pytest.mark.slow
@pytest.mark.parametrize("architecture", ["pixel_cnn", "diagonal_bilstm"])
def test_drivers_lower_the_energy(architecture, netket):
    hilbert = netket.hilbert.Spin(0.5, 6, total_sz=0)
    energy = netket.operator.Heisenberg(hilbert, netket.graph.Grid([2, 3], pbc=False))
    lowest = netket.exact.lanczos_ed(energy)[0]
    config = prnn.ModelConfig(architecture, 1, 4, head_features=5, first_kernel=3)
    state = state_of(netket, hilbert, config, count=64)
    before = state.expect(energy).mean.real
    for driver, optimizer, options in (
        (netket.driver.VMC, optax.adam(0.03), {}),
        (netket.driver.VMC_SR, optax.sgd(0.03), dict(diag_shift=1e-2, use_ntk=True)),
    ):
        driver(energy, optimizer, variational_state=state, **options).run(15, show_progress=False)
        now = state.expect(energy).mean.real
        assert lowest - 1e-6 < now < before - 0.3
        before = now


def test_other_spaces_shapes_and_models_are_refused(netket):
    from pixel_rnn_jax.wave_function import DirectSampler

    state = state_of(netket, netket.hilbert.Spin(0.5, 6), symmetries=("rotations",))
    assert len(state.model._group[0]) == 2  # No quarter turns of an oblong grid.
    with pytest.raises(prnn.UserError, match="6 sites"):
        state.model.apply(state.variables, np.ones((2, 3)))
    state.sampler = DirectSampler(netket.hilbert.Spin(0.5, 6, total_sz=0))
    with pytest.raises(prnn.UserError, match="Spin"):
        state.sample()
    spin, density = netket.hilbert.Spin, prnn.ModelConfig(output="logistic_mixture")
    for hilbert, config, symmetries, field in (
        (spin(0.5, 8), CONFIG, (), "hilbert"),
        (spin(0.5, 4) * netket.hilbert.Fock(1, 2), CONFIG, (), "hilbert"),
        (spin(0.5, 6, total_sz=3), CONFIG, (), "hilbert"),
        (spin(0.5, 6, total_sz=0), prnn.ModelConfig(total=3), (), "total"),
        (spin(0.5, 6), density, (), r"model\.output"),
        (spin(0.5, 6), CONFIG, ("turns",), "symmetries"),
        (spin(0.5, 6, total_sz=1), CONFIG, ("flip",), "symmetries"),
    ):
        with pytest.raises(prnn.UserError, match=field):
            state_of(netket, hilbert, config, symmetries)
