"""The flags of each verb, apart from its module: --help and completion do without JAX."""

from pixel_rnn_jax.cli.flags import (
    Flags,
    condition_flag,
    data_flag,
    file_flag,
    images_flag,
    json_flag,
    out_flag,
    part_flag,
    process_flags,
    seed_flag,
)

IMAGES = 64
ROW = 10
"""Images of each class that `sample` draws by default."""
TEST_IMAGES = 16
"""Images of the test split that `complete` completes by default."""
HALVES = ("top_half", "bottom_half", "left_half", "right_half")
"""What --known takes beside files."""


def train_flags(values: Flags) -> None:
    """Defines the flags of `train`."""
    values.text(
        "allow_change",
        "Fields of the config, with commas between them, in which this command may differ from the "
        "run that it goes on with: optimizer.learning_rate,train.steps. history.jsonl in the "
        "workdir records what changed.",
        "",
    )
    process_flags(values)


def evaluate_flags(values: Flags) -> None:
    """Defines the flags of `evaluate`."""
    values.text(
        "split",
        "Images to evaluate: train, validation or test, as the config of the run names them, or "
        "any split of the data set, such as 'test[:100]'. With --images, a split of those; all of "
        "them without --split.",
        "test",
    )
    images_flag(values, "evaluate", "Default: the --split of the run.")
    data_flag(values)
    values.text(
        "out",
        "An .npz file for the scores of single images: arrays `nats`, `bits_per_dim` (of levels) "
        "and `names`, the names of image files or rows of an array.",
    )
    values.switch(
        "per_value", "With --out: adds an array `nats_per_value`, the nats of each value."
    )
    values.text(
        "pixel_map",
        "A .png file for a picture of where the nats are: the first images of the split, each "
        "beside the negative log-likelihood of its pixels.",
    )
    values.text(
        "continuous",
        "With --dequantize: the workdir of a model that was trained with model.output=logistic_mixture.",
    )
    values.integer(
        "dequantize",
        "Compares the discrete model of --workdir with the density of --continuous, on this many "
        "draws of uniform noise for each image.",
        lower_bound=1,
    )
    json_flag(values)
    process_flags(values)


def sample_flags(values: Flags) -> None:
    """Defines the flags of `sample`."""
    default = f"Default: {IMAGES}, or {ROW} of each class."
    values.integer("n", f"Number of images. {default}", lower_bound=1)
    out_flag(values, "samples.png")
    values.number(
        "temperature",
        "What the logits are divided by: below 1 the likely becomes likelier, and 0 takes the most "
        "probable value of each pixel; 1 is the model itself.",
        1.0,
        lower_bound=0,
    )
    values.text(
        "label",
        "The class of all images, of a model with classes: its number or its name. Default: "
        "the images are spread evenly over the classes, and in a picture each class has a row if "
        "--n is a multiple of their number.",
    )
    condition_flag(values, "One image is drawn for each; a smaller --n takes the first ones.")
    seed_flag(values)


def complete_flags(values: Flags) -> None:
    """Defines the flags of `complete`."""
    images_flag(values, "complete", "Default: the run's test split.")
    part_flag(values, "Default: all; without --images, test of the run.")
    data_flag(values)
    default = f"Default: all of --images, or {TEST_IMAGES} of the test split."
    values.integer("n", f"Number of images, from the first on. {default}", lower_bound=1)
    values.text(
        "known",
        f"What is known of each: {', '.join(HALVES)}, or an image file of the same size in which "
        "what is known is white.",
        HALVES[0],
    )
    values.integer(
        "particles",
        "Completions of an image that are drawn side by side. With 1, values are drawn given what "
        "is above and to the left. More, such as 64, take known values further on into account.",
        1,
        lower_bound=1,
    )
    out_flag(values, "completions.png")
    seed_flag(values)


def compress_flags(values: Flags) -> None:
    """Defines the flags of `compress`."""
    images_flag(values, "compress", "Files keep their names and their order.")
    part_flag(values)
    values.text("out", "The compressed file.", "images.prnn")
    values.switch(
        "fast",
        "Computes in float32, two to three times as fast. Only the same kind of machine with the "
        "same versions of JAX then decompresses the file; otherwise any machine does.",
    )


def append_flags(values: Flags) -> None:
    """Defines the flags of `append`."""
    file_flag(values)
    images_flag(values, "append", "Files keep their names and their order.")
    part_flag(values)


def decompress_flags(values: Flags) -> None:
    """Defines the flags of `decompress`."""
    file_flag(values)
    out_flag(values, "images.npz")
    values.switch(
        "skip_damaged", "Leaves out the images of damaged blocks instead of stopping at the first."
    )


def extract_flags(values: Flags) -> None:
    """Defines the flags of `extract`."""
    file_flag(values)
    values.words(
        "names", "The names of the images, as `info` prints them; --names= may be left out."
    )
    out_flag(values, "images")


def info_flags(values: Flags) -> None:
    """Defines the flags of `info`."""
    file_flag(values)
    json_flag(values)


def verify_flags(values: Flags) -> None:
    """Defines the flags of `verify`."""
    file_flag(values)
    json_flag(values)


def export_flags(values: Flags) -> None:
    """Defines the flags of `export`."""
    values.text("out", "The file, in the safetensors format.", "model.safetensors")


def report_flags(values: Flags) -> None:
    """Defines the flags of `report`."""
    values.text("out", "The .html file, which opens offline and can be mailed.", "report.html")
    values.switch(
        "maps",
        "Draws maps of the nats per pixel, which takes the data and, for a large model, some time; "
        "--nomaps leaves them out.",
        default=True,
    )


def completion_flags(values: Flags) -> None:
    """Defines the flags of `completion`."""
    values.text("shell", "bash or zsh; --shell= may be left out.")
    values.text(
        "line",
        "What the script asks with: a command as far as it is typed; prints how it may go on.",
    )
