"""Writes a trained model with more layers, as the start of a larger one.

    python benchmarks/grow.py cifar10 --out=grown.safetensors --config.model.layers=12
    pixel-rnn-jax --config=cifar10 --config.init_from=grown.safetensors ...

A new layer adds 0 to the stream at first (Chen et al. 2016, Net2Net), which leaves log p as it was.
"""

import jax
import numpy as np
import timing
from flax import traverse_util

import pixel_rnn_jax as prnn
from pixel_rnn_jax.runs.config import Config, with_flags


def grow(model: prnn.ImageModel, config: prnn.ModelConfig) -> prnn.ImageModel:
    """Returns a model of `config` with the parameters of `model`, and its log p."""
    grown = prnn.create(config, model.image_shape, model.levels)
    trained = traverse_util.flatten_dict(model.params)
    params = traverse_util.flatten_dict(grown.params)
    for name, value in params.items():
        if name in trained:
            params[name] = trained[name]
        elif name[-2] == "expand":
            params[name] = np.zeros_like(value)
    grown.params = traverse_util.unflatten_dict(params)
    classes = np.arange(8) % config.num_classes if config.num_classes else None
    images = model.sample(jax.random.key(0), 8, classes)
    log_p = model.log_prob(images, classes)
    np.testing.assert_allclose(grown.log_prob(images, classes), log_p, rtol=1e-5)
    return grown


def main(arguments: list[str] | None = None) -> None:
    """Grows a model."""
    parser = timing.parser(__doc__)
    parser.add_argument("model", help="the name of a bundled model, a workdir or an exported file")
    parser.add_argument("--out", required=True)
    options, flags = parser.parse_known_args(arguments)
    model = prnn.load(options.model)
    grown = grow(model, with_flags(Config(model=model.config), flags).model)
    grown.save(options.out)
    print(f"{model} has become {grown}")


if __name__ == "__main__":
    main()
