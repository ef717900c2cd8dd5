"""Serves codec.py the codec of NeLLoC (Zhang, Zhang and McDonagh, 2021), from a checkout of it.

It runs in an interpreter with torch, torchvision and matplotlib, which the checkout imports.
"""

import math
import sys

import numpy as np
import timing


def build(*, checkout: str, weights: str, images: str, seconds: float) -> timing.Candidate:
    """Builds its interleaved ANS, which codes the images of an .npy file at once."""
    sys.path.insert(0, checkout)
    import torch
    from batch_coder.ians_coder import cpu_ans_compression, cpu_ans_decompression, get_length
    from model import LocalPixelCNN
    from utils import discretized_mix_logistic_uniform

    state = torch.load(weights, map_location="cpu")
    blocks = sum(name.startswith("resnet_cnn3") and name.endswith("weight") for name in state)
    model = LocalPixelCNN(res_num=blocks, channels=256, out_channels=100)
    model.load_state_dict(state)
    # In the order in memory that the decoder has: with another one its probabilities differ.
    batch = torch.tensor(np.load(images).transpose(0, 3, 1, 2).copy())
    sizes = len(batch), *batch.shape[2:], 7, 14  # The kernel, and bits of a probability.
    with torch.no_grad():
        scaled = batch / 127.5 - 1
        nats = float(discretized_mix_logistic_uniform(scaled, model(scaled)))
    code, stack = cpu_ans_compression(model, batch, *sizes[1:])

    def decode() -> None:
        decoded = cpu_ans_decompression(model, code.copy(), stack.copy(), *sizes)
        assert (decoded == batch).all()

    timers = {
        "there": timing.timer(lambda: cpu_ans_compression(model, batch, *sizes[1:]), seconds, 0),
        "back": timing.timer(decode, seconds, 0),
    }
    facts = {
        "name": f"NeLLoC, {blocks} blocks",
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
        "bits": nats / math.log(2),
        "bytes": math.ceil(get_length(code, stack) * batch[0].numel() / 8),
    }
    return timing.Candidate(timers, facts)


if __name__ == "__main__":
    timing.run(lambda: sys.exit(__doc__), build)
