"""Training on arrays, and from another model's parameters."""

import dataclasses
import itertools
from typing import Any

import jax
import numpy as np
import optax
import pytest
from helpers.workdirs import changed

import pixel_rnn_jax as prnn
from pixel_rnn_jax.data import Batch
from pixel_rnn_jax.training.fit import array_splits
from pixel_rnn_jax.training.log import read_metrics
from pixel_rnn_jax.training.train import Training

SIZES: dict[str, Any] = dict(layers=1, features=3, first_kernel=3, head_features=4)
IMAGES = np.random.default_rng(0).integers(3, size=(60, 4, 4))
CONFIG = prnn.Config(
    prnn.ModelConfig("pixel_cnn", **SIZES),
    optimizer=prnn.OptimizerConfig("rmsprop", 0.02, "constant", weight_decay=0),
    train=prnn.TrainConfig(steps=6, batch_size=8, eval_batch_size=8, eval_every=2),
)


def test_arrays_become_a_model():
    condition = np.array(["oak", "elm", "ash"])[np.arange(60) % 3]
    model = prnn.fit(IMAGES, CONFIG, condition)
    assert (model.config.num_classes, model.levels, model.image_shape) == (3, 3, (4, 4, 1))
    assert model.class_names == ("ash", "elm", "oak")
    assert {leaf.device for leaf in jax.tree.leaves(model.params)} == {jax.devices()[0]}
    assert model.log_prob(IMAGES[:2, ..., None], condition[:2]).shape == (2,)


def test_values_and_names_that_are_held_out_alone_count():
    images, names = IMAGES.copy(), np.full(60, "oak", object)
    held_out = np.argsort(np.random.PCG64(0).random_raw(60), kind="stable")[0]
    images[held_out], names[held_out] = 6, "elm"
    config, training, _ = array_splits(CONFIG, images, names.astype(str), 0.1)
    assert config.data.levels == 7 and training.class_names == ("elm", "oak")
    vectors, *_ = array_splits(CONFIG, IMAGES, np.ones((60, 5)), 0.1)
    assert vectors.model.condition_vector == 5


@pytest.mark.slow
def test_real_values_are_fitted_in_their_own_units():
    images = np.random.default_rng(1).normal(50, 4, size=(80, 2, 2))
    config = dataclasses.replace(
        CONFIG, model=prnn.ModelConfig("pixel_cnn", output="gaussian_mixture", **SIZES)
    )
    model = prnn.fit(images[:60], config, validation=images[60:])
    assert model.pixel_rnn.mean == pytest.approx((50,), abs=1)
    assert model.pixel_rnn.std == pytest.approx((4,), abs=1)
    nats = -model.log_prob(images[..., None]).mean() / 4
    assert nats == pytest.approx(0.5 * np.log(2 * np.pi * np.e * 16), abs=0.3)


@pytest.mark.slow
def test_the_same_call_resumes_its_workdir(tmp_path):
    config = dataclasses.replace(CONFIG, optimizer=prnn.OptimizerConfig("muon", 0.02, "constant"))
    whole = prnn.fit(IMAGES, config)
    prnn.fit(IMAGES, changed(config, "train", steps=4), workdir=tmp_path)
    model = prnn.fit(IMAGES, config, workdir=tmp_path)
    jax.tree.map(np.testing.assert_array_equal, model.params, whole.params)
    jax.tree.map(np.testing.assert_array_equal, prnn.load(tmp_path).params, whole.params)
    assert [r["step"] for r in read_metrics(tmp_path) if "validation/nats" in r] == [2, 4, 6]


def test_training_stops_when_patience_ends(tmp_path):
    config = changed(CONFIG, "train", steps=40, eval_every=2, patience=2)
    config, training, held_out = array_splits(config, IMAGES, None, 0.1)
    splits, climbing = {"train": training, "validation": held_out}, optax.sgd(-0.1)
    for _ in range(2):  # And stays ended.
        Training(config, tmp_path, splits, optimizer=climbing, pictures=False).run()
        steps = [r["step"] for r in read_metrics(tmp_path) if "validation/nats" in r]
        assert steps == [2, 4, 6]


@pytest.mark.slow
def test_a_run_says_that_it_overfits_and_that_its_warm_up_is_shortened(capsys):
    optimizer = prnn.OptimizerConfig("adam", 0.05, "constant", warmup_steps=200, ema_decay=0)
    config = changed(CONFIG, "train", steps=150, eval_every=30)
    config = dataclasses.replace(config, optimizer=optimizer)
    prnn.fit(IMAGES[:10], config, validation=IMAGES[10:30])
    remarks = capsys.readouterr().err
    assert "model.dropout" in remarks and "15 of 150" in remarks


def test_a_new_run_starts_from_the_parameters_of_another(tmp_path, capsys):
    config = dataclasses.replace(CONFIG.model, residual=False)
    other = prnn.create(config, (4, 4, 1), levels=3, seed=7)
    other.save(tmp_path / "other.safetensors")
    start = dataclasses.replace(CONFIG, init_from=str(tmp_path / "other.safetensors"))
    model = prnn.fit(IMAGES, start, optimizer=optax.sgd(0.0))
    jax.tree.map(
        lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-6), model.params, other.params
    )
    assert "residual=False" in capsys.readouterr().err
    with pytest.raises(prnn.UserError, match=r"init_from.*scale_0/"):  # Of one more level.
        prnn.fit(np.maximum(IMAGES, 3), start)


def test_a_loss_a_log_and_batches_of_ones_own():
    """The loss is the likelihood, doubled; the batches are one image, again and again."""
    image, label, seen, records = IMAGES[:1], np.ones(1, int), [], {}

    def doubled(model, params, batch, dropout_keys):
        seen.append((batch.images.shape[1:], dropout_keys))
        return -2 * model.log_prob(params, *batch).mean()

    batches = (Batch(image.repeat(8, axis=0), label.repeat(8)) for _ in itertools.count())
    config = prnn.Config(
        prnn.ModelConfig("pixel_cnn", num_classes=2, **SIZES),
        optimizer=CONFIG.optimizer,
        train=prnn.TrainConfig(steps=3, batch_size=8, log_every=1),
    )
    held_out = IMAGES[1:9], np.zeros(8, int)
    start = prnn.create(config.model, (4, 4, 1), levels=3, seed=config.seed)
    fitted = prnn.fit(
        batches,
        config,
        validation=held_out,
        loss=doubled,
        on_record=lambda step, figures: records.update({step: figures}),
    )
    assert [*records] == [1, 2, 3] and seen[0] == ((4, 4, 1), None)
    assert {"train/nats", "train/bits_per_dim"}.isdisjoint(records[1])
    before, after = (float(model.log_prob(image, label)[0]) for model in (start, fitted))
    assert records[1]["train/loss"] == pytest.approx(-2 * before, rel=1e-5) and after > before
    assert "validation/nats" in records[3]
    with pytest.raises(prnn.UserError, match=r"train\.batch_size"):
        prnn.fit(iter([Batch(image, label)]), config, validation=held_out)
    wide = Batch(np.zeros((8, 4, 5, 1), int), label.repeat(8))
    with pytest.raises(prnn.UserError, match=r"\(4, 5, 1\)"):
        prnn.fit(iter([wide]), config, validation=held_out)
    with pytest.raises(prnn.UserError, match="iterator of batches has ended"):
        prnn.fit(iter([next(batches)]), config, validation=held_out)
    with pytest.raises(prnn.UserError, match="validation"):
        prnn.fit(iter([Batch(image)]), config)
    with pytest.raises(prnn.UserError, match="condition"):
        prnn.fit(batches, CONFIG, [0, 1], validation=IMAGES[1:9])
    for images in (lambda: batches, [[1, 2], [3]], iter([IMAGES[:8]]), iter([None])):
        with pytest.raises(prnn.UserError, match="images"):
            prnn.fit(images, CONFIG, validation=IMAGES[8:16])
    with pytest.raises(TypeError, match="scalar"):
        prnn.fit(IMAGES, CONFIG, loss=lambda model, params, *rest: model.log_prob(params, *rest[0]))
