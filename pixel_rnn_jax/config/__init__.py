"""The description of a run: frozen dataclasses that check themselves, and their other forms.

A config file returns an `ml_collections.ConfigDict`, which `load_config` turns into a `Config`. All
other code takes a `Config`. This package imports errors and nothing else of pixel_rnn_jax.
"""

from pixel_rnn_jax.config.files import (
    CONFIGS,
    base_config,
    changed_fields,
    from_config_dict,
    from_json,
    leaves,
    load_config,
    override,
    to_json,
)
from pixel_rnn_jax.config.schema import (
    ARCHITECTURES,
    Config,
    DataConfig,
    ModelConfig,
    OptimizerConfig,
    TrainConfig,
)

__all__ = [
    "ARCHITECTURES",
    "CONFIGS",
    "Config",
    "DataConfig",
    "ModelConfig",
    "OptimizerConfig",
    "TrainConfig",
    "base_config",
    "changed_fields",
    "from_config_dict",
    "from_json",
    "leaves",
    "load_config",
    "override",
    "to_json",
]
