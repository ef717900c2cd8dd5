"""What public implementations of PixelRNN get wrong, planted here one by one: a test must notice.

Each of these mistakes was seen in public code. None changes a shape, and training goes on with all
of them. A check passes on the package as it is and fails on the package with the mistake.
"""

import functools
from types import SimpleNamespace

import jax.numpy as jnp
import numpy as np
import pytest
from helpers.dependencies import COLOUR, TALL, check_changes, check_dependencies

from pixel_rnn_jax.model import kernels
from pixel_rnn_jax.model.layers import diagonal_bilstm, masked_conv, row_lstm
from pixel_rnn_jax.model.layers.diagonal_bilstm import DiagonalBiLSTM
from pixel_rnn_jax.model.network import Network

# Checks. `tests/model/test_masks.py` shows that the package as it is passes them.
check_masks = functools.partial(check_dependencies, **COLOUR)
check_levels = functools.partial(check_changes, **COLOUR)
check_context = functools.partial(check_dependencies, **TALL)


def right_direction_is_padded_after_its_rows(monkeypatch):
    below = ((0, 0), (0, 1), (0, 0), (0, 0))  # In this layer alone.
    own = SimpleNamespace(**vars(kernels))
    own.read_at = lambda x, *_, **kw: jnp.pad(x, below)[:, :-1]
    monkeypatch.setattr(diagonal_bilstm, "kernels", own)


def state_convolution_is_padded_below(monkeypatch):
    _change_taps(monkeypatch, lambda taps: tuple(-tap for tap in taps))


def state_convolution_of_rows_is_padded_left_only(monkeypatch):
    _change_taps(monkeypatch, lambda taps: tuple(tap - max(taps) for tap in taps))


def _change_taps(monkeypatch, change):
    right = kernels.conv_lstm
    monkeypatch.setattr(
        kernels, "conv_lstm", lambda *args, taps, **kw: right(*args, taps=change(taps), **kw)
    )


def right_direction_is_reversed_after_skewing(monkeypatch):
    direction, skew, unskew = DiagonalBiLSTM._direction, kernels.skew, kernels.unskew

    def wrong_direction(self, lstm, gates):
        if lstm.name == "left":
            return direction(self, lstm, gates)
        with monkeypatch.context() as patch:
            # Takes back the flip before skewing, and reverses the skewed map in time instead.
            patch.setattr(kernels, "skew", lambda x, **kw: skew(x[:, :, ::-1], **kw)[::-1])
            patch.setattr(kernels, "unskew", lambda y, **kw: unskew(y[::-1], **kw)[:, :, ::-1])
            patch.setattr(kernels, "restarts", lambda *args, **kw: None)
            return direction(self, lstm, gates)

    monkeypatch.setattr(DiagonalBiLSTM, "_direction", wrong_direction)


def channels_and_columns_are_interchanged(monkeypatch):
    right = kernels.unskew

    def scrambled(*args, **kw):
        h = right(*args, **kw)
        return h.swapaxes(2, 3).reshape(h.shape)

    monkeypatch.setattr(kernels, "unskew", scrambled)


def groups_do_not_reach_the_lstm(monkeypatch):
    for module in (row_lstm, diagonal_bilstm):
        right = module.ConvLSTM

        def one_group(features, groups, *rest, right=right, **kw):
            return right(features, 1, *rest, **kw)

        monkeypatch.setattr(module, "ConvLSTM", one_group)


def four_gates_are_masked_as_one_block(monkeypatch):
    right = masked_conv.channel_mask

    def one_block(*args, blocks=1, **options):
        return right(*args, blocks=1 if blocks == 4 else blocks, **options)

    monkeypatch.setattr(masked_conv, "channel_mask", one_block)


def mask_is_applied_at_creation_only(monkeypatch):
    # The check draws all parameters anew, as updates would: then no mask is left.
    right = masked_conv.channel_mask
    monkeypatch.setattr(
        masked_conv, "channel_mask", lambda *args, **kw: np.ones_like(right(*args, **kw))
    )


def features_of_embedded_values_are_interleaved(monkeypatch):
    right = Network._inputs

    def interleaved(self, values):
        x = right(self, values)
        return x.reshape(*values.shape, -1).swapaxes(-1, -2).reshape(x.shape)

    monkeypatch.setattr(Network, "_inputs", interleaved)


def channels_come_in_reverse(monkeypatch):
    right = Network._inputs
    monkeypatch.setattr(Network, "_inputs", lambda self, values: right(self, values[..., ::-1]))


CASES = [
    (right_direction_is_padded_after_its_rows, check_masks, "diagonal_bilstm", "sees"),
    (state_convolution_is_padded_below, check_masks, "diagonal_bilstm", "sees"),
    (right_direction_is_reversed_after_skewing, check_context, "diagonal_bilstm", "misses"),
    (state_convolution_of_rows_is_padded_left_only, check_context, "row_lstm", "misses"),
    (channels_and_columns_are_interchanged, check_masks, "diagonal_bilstm", "sees"),
    (groups_do_not_reach_the_lstm, check_masks, "row_lstm", "sees"),
    (groups_do_not_reach_the_lstm, check_masks, "diagonal_bilstm", "sees"),
    (four_gates_are_masked_as_one_block, check_masks, "row_lstm", "sees"),
    (mask_is_applied_at_creation_only, check_masks, "pixel_cnn", "sees"),
    (features_of_embedded_values_are_interleaved, check_levels, "row_lstm", "sees"),
    (channels_come_in_reverse, check_levels, "pixel_cnn", "sees"),
]


@pytest.mark.slow
@pytest.mark.parametrize(("mistake", "check", "architecture", "complaint"), CASES)
def test_mistake_is_noticed(monkeypatch, mistake, check, architecture, complaint):
    mistake(monkeypatch)
    with pytest.raises(AssertionError, match=complaint):
        check(architecture)
