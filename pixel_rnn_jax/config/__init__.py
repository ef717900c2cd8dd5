"""The description of a run: frozen dataclasses that check themselves, and their other forms.

A config file gives an `ml_collections.ConfigDict`, `from_config_dict` turns it into a `Config`, and
nothing after that sees a ConfigDict. Config may import errors and nothing else of the package.
"""

from pixel_rnn_jax.config.convert import (
    CONFIGS,
    base_config,
    config_file,
    config_names,
    field_kind,
    from_config_dict,
    from_json,
    leaves,
    load_config_dict,
    to_config_dict,
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
    "config_file",
    "config_names",
    "field_kind",
    "from_config_dict",
    "from_json",
    "leaves",
    "load_config_dict",
    "to_config_dict",
    "to_json",
]
