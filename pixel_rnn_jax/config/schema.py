"""The fields of a config.

Every impossible value raises `UserError` with the field's dotted name, whether it comes from a
file, the command line, Python or a saved `config.json`.
"""

import dataclasses
import itertools
from dataclasses import dataclass

from pixel_rnn_jax.config.checks import check_choice, check_least, check_types
from pixel_rnn_jax.errors import UserError

ARCHITECTURES = ("pixel_cnn", "row_lstm", "diagonal_bilstm")


@dataclass(frozen=True)
class ModelConfig:
    """One PixelRNN (sections 3 and 4 of the paper); the defaults are the paper's best MNIST model.

    Attributes:
        architecture: The body layer: "pixel_cnn", "row_lstm" or "diagonal_bilstm".
        layers: Number of body layers.
        features: h, the features of a body layer; the stream between layers has 2h.
        first_kernel: Side of the first convolution (mask A); odd.
        kernel: Taps of the Row LSTM's two convolutions, or side of the middle convolution of a
            PixelCNN block; odd. The Diagonal BiLSTM does not use it.
        head_features: Width of the two ReLU and 1x1 layers before the output.
        output: Distribution of a value: "softmax" over its levels (a sigmoid for two; the paper's),
            "logistic" (a discretised mixture of logistics), or "continuous" (the density of a
            mixture of logistics, which is trained on dequantised values).
        mixtures: M, the components of the outputs "logistic" and "continuous".
        scales: Heights of the images of a Multi-Scale PixelRNN, the smallest first and the whole
            image last, each a multiple of the one before; empty for a single scale.
        scale_architectures: The body layer of each scale; empty takes `architecture` for all.
        exact: With several scales: copy the pixels that the smaller image gives, so that the model
            is a distribution of images. False is the paper's plain form, which draws them again.
        classes: Number of classes that the model is conditioned on; 0 for none. Training takes them
            from the labels of the data set.
        residual: Add a body layer's input to its output.
        skip: Connect every body layer to the output.
        dtype: What the network computes in: "float32", "bfloat16", or "float64" (which needs
            jax_enable_x64).
        remat: Compute each body layer again in the backward pass, to save memory.
        pack: Images that share a lane of the Diagonal BiLSTM's recurrence; 0 chooses by platform.
    """

    architecture: str = "diagonal_bilstm"
    layers: int = 7
    features: int = 16
    first_kernel: int = 7
    kernel: int = 3
    head_features: int = 32
    output: str = "softmax"
    mixtures: int = 10
    scales: tuple[int, ...] = ()
    scale_architectures: tuple[str, ...] = ()
    exact: bool = True
    classes: int = 0
    residual: bool = True
    skip: bool = True
    dtype: str = "float32"
    remat: bool = False
    pack: int = 0

    def __post_init__(self) -> None:
        check_types(self, "model")
        check_choice("model.architecture", self.architecture, ARCHITECTURES)
        check_choice("model.output", self.output, ("softmax", "logistic", "continuous"))
        check_choice("model.dtype", self.dtype, ("float32", "bfloat16", "float64"))
        check_least(
            self, 1, "model.layers", "model.features", "model.head_features", "model.mixtures"
        )
        check_least(self, 0, "model.pack")
        for name, side in ("first_kernel", self.first_kernel), ("kernel", self.kernel):
            if side < 3 or side % 2 == 0:
                raise UserError(f"model.{name} must be odd and at least 3, got {side}")
        if self.classes < 0 or self.classes == 1:
            raise UserError(f"model.classes must be 0 or at least 2, got {self.classes}")
        self._check_scales()

    def _check_scales(self) -> None:
        pairs = list(itertools.pairwise(self.scales))
        if len(self.scales) == 1 or any(a < 1 or b <= a or b % a for a, b in pairs):
            raise UserError(
                "model.scales must be empty, or at least two heights of which each is a larger "
                f"multiple of the one before, got {self.scales}"
            )
        if len(self.scale_architectures) not in (0, len(self.scales)):
            raise UserError(
                "model.scale_architectures must be empty or name one architecture for each of "
                f"model.scales ({len(self.scales)}), got {self.scale_architectures}"
            )
        for architecture in self.scale_architectures:
            check_choice("model.scale_architectures", architecture, ARCHITECTURES)
        if self.output == "continuous" and self.scales:
            raise UserError('model.output "continuous" is for a single scale: empty model.scales')

    @property
    def plain(self) -> bool:
        """Whether this is the paper's plain multi-scale form, which is no distribution."""
        return bool(self.scales) and not self.exact

    def of_scale(self, number: int) -> "ModelConfig":
        """Returns the config of one scale's network, as that of a model of a single scale."""
        architectures = self.scale_architectures or (self.architecture,) * max(len(self.scales), 1)
        return dataclasses.replace(
            self, architecture=architectures[number], scales=(), scale_architectures=()
        )


@dataclass(frozen=True)
class DataConfig:
    """Where the images come from.

    Attributes:
        name: "digits", a TFDS name ("mnist", "downsampled_imagenet/32x32"), or the path of a folder
            of images or of an .npy or .npz file.
        data_dir: TFDS data directory; "" is TFDS's default.
        levels: K, the number of values that a channel can take; 0 takes it from the data set.
        binarize: How images become binary: "none" (they stay as they are), "dynamic" (a new
            Bernoulli draw each time), "fixed" (one draw for each image) or "threshold".
        train_split: Images to train on, in TFDS split syntax ("train[:45000]").
        validation_split: Images by whose likelihood the best checkpoint is chosen.
        test_split: Images whose likelihood is reported.
    """

    name: str = "digits"
    data_dir: str = ""
    levels: int = 0
    binarize: str = "none"
    train_split: str = "train"
    validation_split: str = "validation"
    test_split: str = "test"

    def __post_init__(self) -> None:
        check_types(self, "data")
        for field in ("name", "train_split", "validation_split", "test_split"):
            if not getattr(self, field):
                raise UserError(f"data.{field} must not be empty")
        if self.levels != 0 and self.levels < 2:
            raise UserError(f"data.levels must be 0 or at least 2, got {self.levels}")
        check_choice("data.binarize", self.binarize, ("none", "dynamic", "fixed", "threshold"))


@dataclass(frozen=True)
class OptimizerConfig:
    """The update rule.

    Attributes:
        name: "rmsprop" (the paper's) or "adam".
        learning_rate: Rate that the schedule starts from, after the warm-up.
        schedule: "constant", "cosine" (falls to zero at train.steps) or "piecewise". With
            train.in_turn each scale has the whole schedule in its own part of the steps.
        warmup_steps: Steps of linear warm-up, under any schedule.
        boundaries: Steps at which the rate of a "piecewise" schedule changes.
        factors: What the rate is multiplied by at each of the boundaries, on top of earlier ones.
        clip_norm: Global norm that gradients are clipped to; 0 for no clipping.
        average: Decay of the moving average of the parameters, which evaluation uses; 0 for none.
    """

    name: str = "rmsprop"
    learning_rate: float = 1e-3
    schedule: str = "constant"
    warmup_steps: int = 0
    boundaries: tuple[int, ...] = ()
    factors: tuple[float, ...] = ()
    clip_norm: float = 1.0
    average: float = 0.999

    def __post_init__(self) -> None:
        check_types(self, "optimizer")
        check_choice("optimizer.name", self.name, ("rmsprop", "adam"))
        if self.learning_rate <= 0:
            raise UserError(
                f"optimizer.learning_rate must be greater than 0, got {self.learning_rate}"
            )
        check_choice("optimizer.schedule", self.schedule, ("constant", "cosine", "piecewise"))
        check_least(self, 0, "optimizer.warmup_steps", "optimizer.clip_norm")
        self._check_pieces()
        if not 0 <= self.average < 1:
            raise UserError(f"optimizer.average must be at least 0 and below 1, got {self.average}")

    def _check_pieces(self) -> None:
        if self.schedule != "piecewise":
            if self.boundaries or self.factors:
                raise UserError(
                    "optimizer.boundaries and optimizer.factors must be empty unless "
                    f'optimizer.schedule is "piecewise", and it is "{self.schedule}"'
                )
            return
        if not self.boundaries:
            raise UserError('optimizer.boundaries must not be empty for the schedule "piecewise"')
        if any(b <= a for a, b in zip((0, *self.boundaries), self.boundaries, strict=False)):
            raise UserError(
                f"optimizer.boundaries must be positive and increasing, got {self.boundaries}"
            )
        if len(self.factors) != len(self.boundaries):
            raise UserError(
                "optimizer.factors must have as many values as optimizer.boundaries "
                f"({len(self.boundaries)}), got {len(self.factors)}"
            )
        if any(factor <= 0 for factor in self.factors):
            raise UserError(f"optimizer.factors must be greater than 0, got {self.factors}")


@dataclass(frozen=True)
class TrainConfig:
    """Duration, batches and intervals of training.

    Attributes:
        steps: Number of updates.
        batch_size: Images of an update, over all devices.
        micro_batches: Parts in which a device computes its share of the batch, one after another,
            adding up their gradients, to save memory; the update is the same.
        eval_batch_size: Images evaluated at a time, over all devices; it changes no result.
        log_every: Steps between records of the training loss.
        eval_every: Steps between validations.
        checkpoint_every: Steps between checkpoints.
        in_turn: With several scales: train one after another, the smallest first, each for an equal
            part of the steps with its own schedule and optimiser state, instead of all at once.
    """

    steps: int = 2500
    batch_size: int = 16
    micro_batches: int = 1
    eval_batch_size: int = 200
    log_every: int = 50
    eval_every: int = 500
    checkpoint_every: int = 500
    in_turn: bool = False

    def __post_init__(self) -> None:
        check_types(self, "train")
        integers = [field.name for field in dataclasses.fields(self) if field.type is int]
        check_least(self, 1, *(f"train.{name}" for name in integers))
        if self.batch_size % self.micro_batches:
            raise UserError(
                f"train.micro_batches must divide train.batch_size ({self.batch_size}), got "
                f"{self.micro_batches}"
            )


@dataclass(frozen=True)
class Config:
    """Everything that determines a run, except the code and the machine.

    Attributes:
        model: The network.
        data: The images.
        optimizer: The update rule.
        train: Duration, batches and intervals.
        seed: Of the initial parameters, the order of the images and every random draw.
    """

    model: ModelConfig = dataclasses.field(default_factory=ModelConfig)
    data: DataConfig = dataclasses.field(default_factory=DataConfig)
    optimizer: OptimizerConfig = dataclasses.field(default_factory=OptimizerConfig)
    train: TrainConfig = dataclasses.field(default_factory=TrainConfig)
    seed: int = 0

    def __post_init__(self) -> None:
        check_types(self, "")
        if not 0 <= self.seed < 2**32:
            raise UserError(f"seed must be at least 0 and below 2**32, got {self.seed}")
        if (
            self.optimizer.schedule == "cosine"
            and self.optimizer.warmup_steps >= self.steps_per_scale
        ):
            raise UserError(
                "optimizer.warmup_steps must be below train.steps "
                f"({self.steps_per_scale}{' for each scale' * self.train.in_turn}) for the "
                f'schedule "cosine", got {self.optimizer.warmup_steps}'
            )
        if self.train.in_turn and self.train.steps % max(len(self.model.scales), 1):
            raise UserError(
                "train.steps must be a multiple of the number of model.scales "
                f"({len(self.model.scales)}) with train.in_turn, got {self.train.steps}"
            )
        if self.train.in_turn and not self.model.scales:
            raise UserError("train.in_turn is for several model.scales, and there are none")

    @property
    def steps_per_scale(self) -> int:
        """Steps that train one scale: all, or with `train.in_turn` an equal part of them."""
        return self.train.steps // (max(len(self.model.scales), 1) if self.train.in_turn else 1)
