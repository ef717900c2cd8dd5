"""Runs for reports, made without training, and what a browser would find in a page."""

import json
from collections.abc import Iterator, Mapping
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np

from pixel_rnn_jax import pictures
from pixel_rnn_jax.config import Config, TrainConfig
from pixel_rnn_jax.runs import workdir as workdir_lib
from pixel_rnn_jax.runs.image_format import ImageFormat
from pixel_rnn_jax.runs.records import picture_path

SMALL = Config(train=TrainConfig(steps=100))
DIGITS = ImageFormat((8, 8, 1), 17)
REAL = ImageFormat((8, 8, 1), 0, (0.0,), (1.0,))
VOID = "meta", "img", "source", "link", "br"


def write_run(
    folder: Path,
    config: Config,
    images: ImageFormat = DIGITS,
    *,
    start: float = 120.0,
    seconds: bool = True,
    result: Mapping[str, Any] | None = None,
) -> Path:
    """Writes a workdir of 100 steps, whose nats fall from `start` to three quarters of it."""
    folder.mkdir(parents=True)
    workdir_lib.write_config(config, folder)
    workdir_lib.write_image_format(images, folder)
    lines = [
        json.dumps(record(step, start, bits=images.levels > 0, seconds=seconds))
        for step in range(10, 101, 10)
    ]
    (folder / "metrics.jsonl").write_text("".join(f"{line}\n" for line in lines))
    for name in ("samples", "completions"):
        path = picture_path(folder, name, 100)
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(pictures.png(pictures.grid(np.zeros((4, 8, 8, 1), int), 2)))
    if result:
        (folder / "result.json").write_text(json.dumps(result))
    return folder


def record(step: int, start: float, *, bits: bool, seconds: bool) -> dict[str, float]:
    """Returns a record as training writes it; every second one has a validation."""
    nats = start * (0.75 + 0.25 * 0.9 ** (step / 5))
    kinds = ("train", "validation") if step % 20 == 0 else ("train",)
    found: dict[str, float] = {"step": step}
    for kind in kinds:
        found[f"{kind}/nats"] = nats
        found |= {f"{kind}/bits_per_dim": nats / 64 / np.log(2)} if bits else {}
    return found | ({"seconds": step * 1.5} if seconds else {})


def result(nats: float, **more: Any) -> dict[str, Any]:
    """Returns what `result.json` of 100 steps holds."""
    test = {"nats": nats, "standard_error": 0.25, "images": 1234}
    return {
        "step": 80,
        "test": test | {"bits_per_dim": nats / 64 / np.log(2)},
        "validation": {},
        "independent_pixels": test | {"nats": nats + 10, "training_images": 5},
        "steps": 100,
        "resumed_from": 0,
        "seconds": 151.5,
        "finished": "2030-01-02T03:04:05+0000",
        "versions": {"python": "3.99.1", "jax": "0.98.7"},
        "hardware": {"platform": "cpu", "device": "abacus", "devices": 2, "processes": 1},
    } | more


class Page(HTMLParser):
    """A page as a browser reads it; every element that is opened must be closed.

    Attributes:
        text: What stands outside of <style>, with single spaces.
        addresses: All that pictures and links refer to.
        tables: Rows of cells of each table, in order.
    """

    def __init__(self, html: str):
        super().__init__()
        self.addresses: list[str] = []
        self.tags: list[str] = []
        self._text: list[str] = []
        self._open: list[str] = []
        self._cells: list[list[list[list[str]]]] = []
        self.feed(html)
        self.close()
        assert not self._open, f"{self._open} are not closed"
        self.text = " ".join(" ".join(self._text).split())
        self.tables = [
            [[" ".join(" ".join(cell).split()) for cell in row] for row in table]
            for table in self._cells
        ]

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.addresses += [
            value or "" for name, value in attrs if name in ("src", "srcset", "href", "data")
        ]
        if tag not in VOID:
            self._open.append(tag)
        match tag:
            case "table":
                self._cells.append([])
            case "tr":
                self._cells[-1].append([])
            case "td" | "th":
                self._cells[-1][-1].append([])

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        if "style" in self._open:
            return
        self._text.append(data)
        if {"td", "th"} & {*self._open}:
            self._cells[-1][-1][-1].append(data)

    def rows(self, number: int = 0) -> Iterator[dict[str, str]]:
        """Yields the rows of a table by the headings of its columns."""
        headings, *rows = self.tables[number]
        return (dict(zip(headings, row, strict=True)) for row in rows)
