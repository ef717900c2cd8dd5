"""The fields of a config. An impossible value raises `UserError` with the field's dotted name."""

import dataclasses
import itertools
from dataclasses import dataclass

from pixel_rnn_jax.config.checks import (
    check,
    check_choice,
    check_choices,
    check_least,
    check_types,
)
from pixel_rnn_jax.errors import UserError

ARCHITECTURES = ("pixel_cnn", "row_lstm", "diagonal_bilstm")
CHOICES = {
    "model.architecture": ARCHITECTURES,
    "model.input": ("scalar", "categorical"),
    "model.output": (
        "softmax",
        "discretized_logistic_mixture",
        "logistic_mixture",
        "gaussian_mixture",
    ),
    "model.dtype": ("float32", "bfloat16", "float64"),
    "data.binarize": ("none", "dynamic", "fixed", "threshold"),
    "optimizer.name": ("rmsprop", "adam", "muon"),
    "optimizer.schedule": ("constant", "cosine", "piecewise"),
}
"""What a field takes, of those that take a few words only."""


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
        input: How a value enters: "scalar" (an intensity; the paper's) or "categorical" (an
            embedding of each level, for codes and classes, whose order means nothing).
        output: Distribution of a value: "softmax" over its levels (a sigmoid for two; the paper's),
            "discretized_logistic_mixture" (a discretised mixture of logistics), "logistic_mixture" (the density of a mixture
            of logistics, which is trained on dequantised values), or "gaussian_mixture" (the
            density of a mixture of Gaussians, for any real values).
        mixtures: M, the components of all outputs but "softmax".
        scales: Image heights of a Multi-Scale PixelRNN, from the smallest to the whole image, each
            a multiple of the one before; empty for a single scale.
        scale_architectures: The body layer of each scale; empty takes `architecture` for all.
        copy_coarse: With several scales: copy the pixels of the smaller image into the larger one, so
            that the model is a distribution over images. False is the paper's plain form, which
            draws them again.
        num_classes: Number of classes that the model is conditioned on; 0 for none. Training takes them
            from the labels of the data set.
        condition_vector: D of the vectors `[B, D]` that the model is conditioned on; 0 for none.
        condition_map: D of the maps `[B, H, W, D]` that the model is conditioned on; 0 for none.
            Training takes vectors and maps from the array `condition` of an .npz file.
        residual: Add a body layer's input to its output.
        skip: Connect every body layer to the output.
        dtype: What the network computes in: "float32", "bfloat16", or "float64" (which needs
            jax_enable_x64).
        remat: Recompute each body layer in the backward pass, to save memory.
        images_per_lane: Images that share a lane of the Diagonal BiLSTM's recurrence; 0 chooses by platform.
    """

    architecture: str = "diagonal_bilstm"
    layers: int = 7
    features: int = 16
    first_kernel: int = 7
    kernel: int = 3
    head_features: int = 32
    input: str = "scalar"
    output: str = "softmax"
    mixtures: int = 10
    scales: tuple[int, ...] = ()
    scale_architectures: tuple[str, ...] = ()
    copy_coarse: bool = True
    num_classes: int = 0
    condition_vector: int = 0
    condition_map: int = 0
    residual: bool = True
    skip: bool = True
    dtype: str = "float32"
    remat: bool = False
    images_per_lane: int = 0

    def __post_init__(self) -> None:
        check_types(self, "model")
        check_choices(self, "model", CHOICES)
        check_least(
            self, 1, "model.layers", "model.features", "model.head_features", "model.mixtures"
        )
        check_least(
            self, 0, "model.images_per_lane", "model.condition_vector", "model.condition_map"
        )
        for name, side in ("model.first_kernel", self.first_kernel), ("model.kernel", self.kernel):
            check(self, name, "be odd and at least 3", side >= 3 and side % 2 == 1)
        check(
            self,
            "model.num_classes",
            "be 0 or at least 2",
            self.num_classes == 0 or self.num_classes >= 2,
        )
        if (self.num_classes > 0) + (self.condition_vector > 0) + (self.condition_map > 0) > 1:
            raise UserError(
                "a model has one condition: set one of model.num_classes, model.condition_vector and "
                "model.condition_map (a map can hold a class or a vector at every pixel as well)"
            )
        if self.input == "categorical" and not self.discrete:
            raise UserError(
                f'model.output "{self.output}" is for values that are numbers: model.input must be '
                '"scalar"'
            )
        self._check_scales()

    def _check_scales(self) -> None:
        count = len(self.scales)
        check(
            self,
            "model.scales",
            "be empty, or at least two heights, each a larger multiple of the one before",
            count != 1
            and all(0 < a < b and b % a == 0 for a, b in itertools.pairwise(self.scales)),
        )
        check(
            self,
            "model.scale_architectures",
            f"be empty or name one architecture for each of model.scales ({count})",
            len(self.scale_architectures) in (0, count),
        )
        for architecture in self.scale_architectures:
            check_choice("model.scale_architectures", architecture, ARCHITECTURES)
        if not self.discrete and self.scales:
            raise UserError(
                f'model.output "{self.output}" is for a single scale: empty model.scales'
            )

    @property
    def discrete(self) -> bool:
        """Whether values are levels that have probabilities; otherwise the model is a density."""
        return self.output in ("softmax", "discretized_logistic_mixture")

    @property
    def plain(self) -> bool:
        """Whether this is the paper's plain multi-scale form, which has no likelihood of images."""
        return bool(self.scales) and not self.copy_coarse

    def of_scale(self, number: int) -> "ModelConfig":
        """Returns the config of one scale's network, as a single-scale model."""
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
        flip: Show each training image, at each visit, mirrored left to right with probability 1/2.
        train_split: Images to train on: the name of a split, or a part of one ("train[:45000]",
            "train[:90%]"); of TFDS sets anything in its split syntax.
        validation_split: Images by whose likelihood the best checkpoint is chosen.
        test_split: Images whose likelihood is reported.
    """

    name: str = "digits"
    data_dir: str = ""
    levels: int = 0
    binarize: str = "none"
    flip: bool = False
    train_split: str = "train"
    validation_split: str = "validation"
    test_split: str = "test"

    def __post_init__(self) -> None:
        check_types(self, "data")
        for field in ("name", "train_split", "validation_split", "test_split"):
            check(self, f"data.{field}", "not be empty", getattr(self, field) != "")
        check(self, "data.levels", "be 0 or at least 2", self.levels == 0 or self.levels >= 2)
        check_choices(self, "data", CHOICES)


@dataclass(frozen=True)
class OptimizerConfig:
    """The update rule.

    Attributes:
        name: "rmsprop" (the paper's), "adam", or "muon" (kernels are updated by orthogonalised
            momentum; vectors, embeddings and the last layer by Adam).
        learning_rate: Rate that the schedule starts from, after the warm-up.
        schedule: "constant", "cosine" (falls to zero at train.steps) or "piecewise". With
            train.in_turn each scale has the whole schedule in its own part of the steps.
        warmup_steps: Steps of linear warm-up, under any schedule.
        boundaries: Steps at which the rate of a "piecewise" schedule changes.
        boundary_factors: What the rate is multiplied by at each boundary; factors accumulate.
        clip_norm: Global norm that gradients are clipped to; 0 for no clipping.
        weight_decay: Each update also subtracts this times the rate times the weight. It applies to
            the kernels (not to vectors, embeddings or the last layer), under any rule.
        ema_decay: Decay of the moving average of the parameters, which evaluation uses; 0 for none.
            At step t it is at most (1 + t) / (10 + t): 0.999 holds from step 9,000 on.
    """

    name: str = "rmsprop"
    learning_rate: float = 1e-3
    schedule: str = "constant"
    warmup_steps: int = 0
    boundaries: tuple[int, ...] = ()
    boundary_factors: tuple[float, ...] = ()
    clip_norm: float = 1.0
    weight_decay: float = 0.0
    ema_decay: float = 0.999

    def __post_init__(self) -> None:
        check_types(self, "optimizer")
        check_choices(self, "optimizer", CHOICES)
        check(self, "optimizer.learning_rate", "be greater than 0", self.learning_rate > 0)
        fields = ("warmup_steps", "clip_norm", "weight_decay")
        check_least(self, 0, *(f"optimizer.{field}" for field in fields))
        self._check_pieces()
        check(self, "optimizer.ema_decay", "be at least 0 and below 1", 0 <= self.ema_decay < 1)

    def _check_pieces(self) -> None:
        if self.schedule != "piecewise":
            if self.boundaries or self.boundary_factors:
                raise UserError(
                    "optimizer.boundaries and optimizer.boundary_factors must be empty unless "
                    f'optimizer.schedule is "piecewise", and it is "{self.schedule}"'
                )
            return
        boundaries, count = (0, *self.boundaries), len(self.boundaries)
        increasing = count > 0 and all(a < b for a, b in itertools.pairwise(boundaries))
        steps = 'be one or more positive, increasing steps for the schedule "piecewise"'
        check(self, "optimizer.boundaries", steps, increasing)
        same = f"have as many values as optimizer.boundaries ({count})"
        check(self, "optimizer.boundary_factors", same, len(self.boundary_factors) == count)
        check(
            self, "optimizer.boundary_factors", "be greater than 0", min(self.boundary_factors) > 0
        )


@dataclass(frozen=True)
class TrainConfig:
    """Duration, batches and intervals of training.

    Attributes:
        steps: Number of updates.
        minutes: Time for the updates, instead of `steps`: when a run begins, some updates are
            timed, and `steps` becomes as many as fit, with the schedule over all of them. Starting,
            validations and pictures come on top. 0 for none.
        batch_size: Images of an update, over all devices.
        micro_batches: Parts of a device's share of the batch, computed one after another to save
            memory. Their gradients are added up; the update is the same. 0 chooses by platform: on
            a CPU so many that the maps of a part stay in its caches, else 1.
        eval_batch_size: Images evaluated at a time, over all devices; it changes no result.
        log_every: Steps between records of the training loss.
        eval_every: Steps between validations.
        checkpoint_every: Steps between checkpoints.
        patience: Training stops after this many times eval_every steps without a validation that is
            the best so far; 0 for never.
        in_turn: With several scales: train them one after another, the smallest first, instead of
            all at once. Each has an equal part of the steps, its own schedule and optimiser state.
    """

    steps: int = 2500
    minutes: float = 0.0
    batch_size: int = 16
    micro_batches: int = 0
    eval_batch_size: int = 200
    log_every: int = 50
    eval_every: int = 500
    checkpoint_every: int = 500
    patience: int = 0
    in_turn: bool = False

    def __post_init__(self) -> None:
        check_types(self, "train")
        integers = {field.name for field in dataclasses.fields(self) if field.type is int}
        check_least(
            self, 1, *(f"train.{name}" for name in sorted(integers - {"micro_batches", "patience"}))
        )
        check_least(self, 0, "train.micro_batches", "train.patience", "train.minutes")
        whole = self.batch_size % (self.micro_batches or 1) == 0
        check(self, "train.micro_batches", f"divide train.batch_size ({self.batch_size})", whole)


@dataclass(frozen=True)
class Config:
    """Everything that determines a run, except the code and the machine.

    Attributes:
        model: The network.
        data: The images.
        optimizer: The update rule.
        train: Duration, batches and intervals.
        seed: Seed of the initial parameters, the order of the images and every random draw.
        init_from: Where a new run takes its first parameters from: the workdir of a run, an
            exported file, or the name of a model of the package; "" draws them.
        init_partial: Whether to draw those that `init_from` lacks or has in another shape, such as
            those that depend on the number of levels or classes.
    """

    model: ModelConfig = dataclasses.field(default_factory=ModelConfig)
    data: DataConfig = dataclasses.field(default_factory=DataConfig)
    optimizer: OptimizerConfig = dataclasses.field(default_factory=OptimizerConfig)
    train: TrainConfig = dataclasses.field(default_factory=TrainConfig)
    seed: int = 0
    init_from: str = ""
    init_partial: bool = False

    def __post_init__(self) -> None:
        check_types(self, "")
        check(self, "seed", "be at least 0 and below 2**32", 0 <= self.seed < 2**32)
        scales = len(self.model.scales)
        if self.data.flip and self.model.condition_map:
            raise UserError(
                "data.flip mirrors images, but not the maps of model.condition_map: set one of them"
            )
        if self.init_partial and not self.init_from:
            raise UserError("init_partial is for init_from, which is not set: set both or neither")
        if self.train.patience and self.train.in_turn:
            raise UserError("train.patience must be 0 with train.in_turn, whose turns are fixed")
        if self.train.in_turn and not scales:
            raise UserError("train.in_turn is for several model.scales, and there are none")
        if self.train.minutes and self.train.in_turn:
            raise UserError("train.minutes must be 0 with train.in_turn: give train.steps")
        check(
            self.train,
            "train.steps",
            f"be a multiple of the number of model.scales ({scales}) with train.in_turn",
            not self.train.in_turn or self.train.steps % scales == 0,
        )
        each = " for each scale" if self.train.in_turn else ""
        check(
            self.optimizer,
            "optimizer.warmup_steps",
            f'be below train.steps ({self.steps_per_scale}{each}) for the schedule "cosine"',
            self.optimizer.schedule != "cosine"
            or self.train.minutes > 0  # The steps are not known yet.
            or self.optimizer.warmup_steps < self.steps_per_scale,
        )

    @property
    def steps_per_scale(self) -> int:
        """Steps that train one scale: all, or with `train.in_turn` an equal part of them."""
        return self.train.steps // (max(len(self.model.scales), 1) if self.train.in_turn else 1)
