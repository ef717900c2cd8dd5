"""Training on arrays, from another model's parameters, and on under another config."""

import dataclasses
import json
import re
from typing import Any

import jax
import numpy as np
import optax
import pytest

import pixel_rnn_jax as prnn
from pixel_rnn_jax import data
from pixel_rnn_jax.runs.records import read_records
from pixel_rnn_jax.runs.workdir import read_config
from pixel_rnn_jax.training.train import train

pytestmark = pytest.mark.usefixtures("no_pictures")
KEY = jax.random.key(0)
SIZES: dict[str, Any] = dict(layers=1, features=3, first_kernel=3, head_features=4)
IMAGES = np.random.default_rng(0).integers(3, size=(60, 4, 4))
CONFIG = prnn.Config(
    prnn.ModelConfig("pixel_cnn", **SIZES),
    optimizer=prnn.OptimizerConfig(learning_rate=0.02),
    train=prnn.TrainConfig(steps=6, batch_size=8, eval_batch_size=8, eval_every=2),
)


def with_train(config, **fields):
    return dataclasses.replace(config, train=dataclasses.replace(config.train, **fields))


@pytest.mark.parametrize(
    ("condition", "field", "value"),
    [
        (None, "num_classes", 0),
        (np.arange(60) % 4, "num_classes", 4),
        (np.array(["oak", "elm", "ash"])[np.arange(60) % 3], "num_classes", 3),
        (np.ones((60, 5)), "condition_vector", 5),
        (np.ones((60, 4, 4, 2)), "condition_map", 2),
    ],
)
def test_arrays_become_a_model(condition, field, value):
    model = prnn.fit(IMAGES, CONFIG, condition)
    assert (getattr(model.config, field), model.levels, model.image_shape) == (value, 3, (4, 4, 1))
    assert model.class_names == (("ash", "elm", "oak") if value == 3 else ())
    assert {leaf.device for leaf in jax.tree.leaves(model.params)} == {jax.devices()[0]}
    given = None if condition is None else condition[:2]
    assert model.log_prob(IMAGES[:2, ..., None], given).shape == (2,)


def test_values_and_names_that_are_held_out_alone_count():
    images, names = IMAGES.copy(), np.full(60, "oak", object)
    held_out = np.argsort(np.random.PCG64(0).random_raw(60), kind="stable")[0]
    images[held_out], names[held_out] = 6, "elm"
    model = prnn.fit(images, CONFIG, names)
    assert (model.levels, model.class_names) == (7, ("elm", "oak"))


def test_real_values_are_fitted_in_their_own_units():
    images = np.random.default_rng(1).normal(50, 4, size=(80, 2, 2))
    config = dataclasses.replace(
        CONFIG, model=prnn.ModelConfig("pixel_cnn", output="gaussian_mixture", **SIZES)
    )
    model = prnn.fit(images[:60], config, validation=images[60:])
    assert model.pixel_rnn.offset == pytest.approx((50,), abs=1)
    assert model.pixel_rnn.scale == pytest.approx((4,), abs=1)
    nats = -model.log_prob(images[..., None]).mean() / 4
    assert nats == pytest.approx(0.5 * np.log(2 * np.pi * np.e * 16), abs=0.3)


def test_levels_of_a_density_are_those_of_the_values():
    model = prnn.ModelConfig("pixel_cnn", output="logistic_mixture")
    found, *_ = data.memory_sources(prnn.Config(model), IMAGES.astype(int), None, 0.1)
    assert found.data.levels == IMAGES.max() + 1


@pytest.mark.parametrize("optimizer", [pytest.param("rmsprop", marks=pytest.mark.slow), "muon"])
def test_the_same_call_goes_on_with_its_workdir_and_other_arrays_are_refused(optimizer, tmp_path):
    config = dataclasses.replace(CONFIG, optimizer=prnn.OptimizerConfig(optimizer, 0.02))
    whole = prnn.fit(IMAGES, config)
    prnn.fit(IMAGES, with_train(config, steps=4), workdir=tmp_path)
    model = prnn.fit(IMAGES, config, workdir=tmp_path)
    jax.tree.map(np.testing.assert_array_equal, model.params, whole.params)
    jax.tree.map(np.testing.assert_array_equal, prnn.load(tmp_path).params, whole.params)
    assert [r["step"] for r in read_records(tmp_path) if "validation/nats" in r] == [2, 4, 6]
    with pytest.raises(prnn.UserError, match=r"do not change data.name from 'arrays in memory \w+"):
        prnn.fit((IMAGES + 1) % 3, config, workdir=tmp_path)


def test_an_optimizer_of_optax_is_used():
    still = prnn.fit(IMAGES, CONFIG, optimizer=optax.sgd(0.0))
    start = jax.jit(still.pixel_rnn.init)(jax.random.key(CONFIG.seed))
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-6), still.params, start)


def test_training_stops_when_patience_ends(tmp_path):
    config = with_train(CONFIG, steps=40, eval_every=2, patience=2)
    prnn.fit(IMAGES, config, workdir=tmp_path, optimizer=optax.sgd(-0.1))  # It climbs.
    steps = [r["step"] for r in read_records(tmp_path) if "validation/nats" in r]
    assert steps == [2, 4, 6]
    prnn.fit(IMAGES, config, workdir=tmp_path, optimizer=optax.sgd(-0.1))  # And stays ended.
    assert [r["step"] for r in read_records(tmp_path) if "validation/nats" in r] == steps


@pytest.mark.parametrize(
    ("images", "options", "message"),
    [
        (IMAGES[0], {}, r"shape .N, H, W. or .N, H, W, C., got .4, 4. of int64"),
        (IMAGES / 3, {}, "turn the values into levels"),
        (IMAGES, dict(validation=1), "validation must be a share between 0 and 1, got 1"),
        (IMAGES, dict(condition=np.arange(60) - 1), "classes must be integers from 0 on, got -1"),
        (IMAGES, dict(condition=3), "there are 60 images, but condition has 1 rows"),
        (IMAGES, dict(condition=[0, 1]), "there are 60 images, but condition has 2 rows"),
        (IMAGES, dict(condition=np.ones((60, 2, 2))), r"condition must be .N. integers or names"),
        (IMAGES, dict(validation=1.5), "validation must be a share between 0 and 1, got 1.5"),
        (IMAGES, dict(validation=IMAGES[:, :3]), "the validation images have shape .3, 4, 1."),
        (
            IMAGES[:2],
            dict(condition=["a", "b"], validation=(IMAGES[2:4], ["a", "c"])),
            "the class 'c' of validation is in no training image",
        ),
    ],
)
def test_arrays_that_do_not_fit_are_refused(images, options, message):
    with pytest.raises(prnn.UserError, match=message):
        prnn.fit(images, CONFIG, **options)


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    folder = tmp_path_factory.mktemp("trained")
    prnn.fit(IMAGES, CONFIG, workdir=folder)
    return folder


def test_a_new_run_starts_from_the_parameters_of_another(trained, capsys):
    start = dataclasses.replace(CONFIG, init_from=str(trained))
    model = prnn.fit(IMAGES, start, optimizer=optax.sgd(0.0))
    jax.tree.map(
        lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-6),
        model.params,
        prnn.load(trained).params,
    )
    assert re.search(r"(\d+) of \1 parameters are those of", capsys.readouterr().out)


def test_a_run_that_goes_on_keeps_where_its_parameters_came_from(trained, tmp_path, capsys):
    prnn.fit(IMAGES, dataclasses.replace(CONFIG, init_from=str(trained)), workdir=tmp_path)
    longer = with_train(CONFIG, steps=CONFIG.train.steps + 1)
    prnn.fit(IMAGES, longer, workdir=tmp_path)
    found = read_config(tmp_path)
    assert (found.init_from, found.train) == (str(trained), longer.train)
    assert "init_from is left out" not in capsys.readouterr().out
    prnn.fit(IMAGES, dataclasses.replace(longer, init_from="another"), workdir=tmp_path)
    assert f"init_from is left out: {tmp_path} has a run, which goes on" in capsys.readouterr().out


def test_parameters_that_do_not_fit_are_listed_and_drawn_if_asked_to(trained, tmp_path, capsys):
    """One more level changes the last layer, classes add to every layer."""
    wider = dataclasses.replace(CONFIG, init_from=str(trained))
    images = IMAGES.copy()
    images[0] = 3
    classes = np.arange(60) % 2
    with pytest.raises(prnn.UserError) as refused:
        prnn.fit(images, wider, classes)
    for part in (
        "it lacks: scale_0/body_0/condition_to_",
        "of another shape are: scale_0/logits/bias, scale_0/logits/kernel",
        "--config.init_partial=true",
    ):
        assert part in str(refused.value)
    partial = dataclasses.replace(wider, init_partial=True)
    model = prnn.fit(images, partial, classes, optimizer=optax.sgd(0.0))
    old, new = prnn.load(trained).params["scale_0"], model.params["scale_0"]
    np.testing.assert_allclose(new["first"]["kernel"], old["first"]["kernel"], rtol=1e-6)
    assert new["logits"]["bias"].shape == (4,)
    assert "of another shape are: scale_0/logits/bias" in capsys.readouterr().out
    with pytest.raises(prnn.UserError, match="it lacks"):
        prnn.fit(images, wider, classes, workdir=tmp_path / "run")
    assert not (tmp_path / "run").exists()  # So that a corrected call may use it.
    with pytest.raises(prnn.UserError, match="init_partial is for init_from, which is not set"):
        dataclasses.replace(partial, init_from="")
    with pytest.raises(prnn.UserError, match="holds no training run"):
        prnn.fit(IMAGES, dataclasses.replace(CONFIG, init_from=str(trained / "none")))


def test_a_finished_run_goes_on_under_another_rate_and_schedule_if_named(config, tmp_path):
    train(config, tmp_path)
    optimizer = dataclasses.replace(config.optimizer, learning_rate=0.001, schedule="cosine")
    longer = dataclasses.replace(with_train(config, steps=9), optimizer=optimizer)
    with pytest.raises(prnn.UserError) as refused:
        train(longer, tmp_path)
    names = "optimizer.learning_rate,optimizer.schedule,train.steps"
    assert f"--allow_change={names} changes it all the same" in str(refused.value)
    train(longer, tmp_path, allow_change=names.split(","))
    last = read_records(tmp_path)[-1]
    assert last["step"] == 9 and last["train/learning_rate"] < 0.001
    (line,) = (tmp_path / "history.jsonl").read_text().splitlines()
    assert json.loads(line) == {
        "step": 6,
        "changed": {
            "optimizer.learning_rate": {"from": 0.01, "to": 0.001},
            "optimizer.schedule": {"from": "constant", "to": "cosine"},
            "train.steps": {"from": 6, "to": 9},
        },
    }
    assert read_config(tmp_path) == longer
    with pytest.raises(prnn.UserError, match="model.layers cannot be changed in a run"):
        train(longer, tmp_path, allow_change=["model.layers"])


@pytest.mark.parametrize(
    "kind", ["map", *(pytest.param(kind, marks=pytest.mark.slow) for kind in ("class", "vector"))]
)
def test_what_a_condition_says_of_an_image_is_learned(kind):
    """Each value is noise, but for what is planted in the condition."""
    random, count = np.random.default_rng(2), 400
    if kind == "class":
        condition = random.integers(2, size=count)
        images = np.broadcast_to(condition[:, None, None], (count, 4, 4))
    elif kind == "vector":
        condition = random.normal(size=(count, 3))
        images = np.broadcast_to(condition[:, 1, None, None] > 0, (count, 4, 4))
    else:
        condition = random.normal(size=(count, 4, 4, 2))
        images = condition[..., 1] > 0
    images = images ^ (random.random(images.shape) < 0.02)  # A value is certain to 0.1 nats.
    config = dataclasses.replace(
        with_train(CONFIG, steps=150, batch_size=32, eval_every=150),
        model=prnn.ModelConfig("pixel_cnn", layers=1, features=8, head_features=8, first_kernel=3),
        optimizer=prnn.OptimizerConfig("adam", 0.02, ema_decay=0.9),
    )
    model = prnn.fit(images.astype(int), config, condition)
    held_out = images[:100, ..., None].astype(np.uint8)
    nats = -model.log_prob(held_out, condition[:100]).mean()
    other = -model.log_prob(held_out, condition[100:200]).mean()
    assert nats < 0.35 * 16 * np.log(2)
    assert other > 3 * nats
