"""The description of a run: frozen dataclasses that check themselves, and their other forms.

A config file returns an `ml_collections.ConfigDict`, which `load_config` turns into a `Config`.
"""

from pixel_rnn_jax.config.load import CONFIGS as CONFIGS
from pixel_rnn_jax.config.load import base_config as base_config
from pixel_rnn_jax.config.load import changed_fields as changed_fields
from pixel_rnn_jax.config.load import from_config_dict as from_config_dict
from pixel_rnn_jax.config.load import leaves as leaves
from pixel_rnn_jax.config.load import load_config as load_config
from pixel_rnn_jax.config.load import to_json as to_json
from pixel_rnn_jax.config.load import with_flags as with_flags
from pixel_rnn_jax.config.schema import Config as Config
from pixel_rnn_jax.config.schema import DataConfig as DataConfig
from pixel_rnn_jax.config.schema import ModelConfig as ModelConfig
from pixel_rnn_jax.config.schema import OptimizerConfig as OptimizerConfig
from pixel_rnn_jax.config.schema import TrainConfig as TrainConfig
