"""The description of a run: frozen dataclasses that check themselves, and their other forms.

A config file returns an `ml_collections.ConfigDict`, which `load_config` turns into a `Config`.
"""

from pixel_rnn_jax.config.load import (
    CONFIGS,
    base_config,
    changed_fields,
    from_config_dict,
    leaves,
    load_config,
    to_json,
    with_flags,
)
from pixel_rnn_jax.config.schema import (
    Config,
    DataConfig,
    ModelConfig,
    OptimizerConfig,
    TrainConfig,
)

__all__ = [
    "CONFIGS",
    "Config",
    "DataConfig",
    "ModelConfig",
    "OptimizerConfig",
    "TrainConfig",
    "base_config",
    "changed_fields",
    "from_config_dict",
    "leaves",
    "load_config",
    "to_json",
    "with_flags",
]
