"""The description of a run: frozen dataclasses that check themselves, and their other forms.

A config file returns an `ml_collections.ConfigDict`, which `from_config_dict` turns into a
`Config`. All other code takes a `Config`. This room imports errors and no other room.
"""

from pixel_rnn_jax.config.convert import (
    CONFIGS,
    base_config, changed_fields,
    config_names,
    field_choices,
    field_kind,
    field_meanings,
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
    "config_names",
    "field_choices",
    "field_kind",
    "field_meanings",
    "from_config_dict",
    "from_json",
    "leaves",
    "load_config_dict",
    "to_config_dict",
    "to_json",
]
