"""The networks as plain NumPy loops over an exported file, read as `docs/weights.md` says.

The functions `read` and `full_kernel` are those of that page.
"""

import re
from pathlib import Path
from typing import Any

import numpy as np
from helpers.reference_kernels import diagonal_lstm, linear_sweep, row_lstm

PAGE = (Path(__file__).parents[2] / "docs" / "weights.md").read_text(encoding="utf-8")


namespace: dict[str, Any] = {}
for block in re.findall(r"^```python\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL):
    for part in re.findall(r"^(?:import .*\n|def .*\n(?:\n|    .*\n)*)", block, re.MULTILINE):
        exec(part, namespace)
read, full_kernel = namespace["read"], namespace["full_kernel"]


class ExportedNetwork:
    """The network of one scale of a file, in float64."""

    def __init__(self, path, scale=0):
        description, arrays = read(path)
        self.config, images = description["config"], description["images"]
        self.channels, self.levels = images["image_shape"][-1], images["levels"]
        self.units = [np.array(images[name]) for name in ("mean", "std")]
        prefix = f"scale_{scale}/"
        self.arrays = {
            name.removeprefix(prefix): array.astype(np.float64)
            for name, array in arrays.items()
            if name.startswith(prefix)
        }

    def outputs(self, image, condition=None, coarse=None):
        """The outputs of an image `[H, W, C]`, `[H, W, C, Q]`."""
        h, side = self.config["features"], self.config["first_kernel"]
        features = self.features(condition, coarse)
        x = self.masked("first", self.inputs(image), (side, side), "A")
        skips, above = 0, None
        for i in range(self.config["layers"]):
            if "vertical_0/kernel" in self.arrays:
                out, above = self.gated(i, x, above, features)
            else:
                out = self.layer(f"body_{i}", x, features)
            out = self.masked(f"residual_{i}/expand", out, parts=2 if self.config["skip"] else 1)
            x = out[..., : 2 * h] + (x if self.config["residual"] else 0)
            if self.config["skip"]:
                skips = skips + out[..., 2 * h :]
        x = x + skips
        for name in ("head_0", "head_1", "logits"):
            x = self.masked(name, relu(x))
        x = x.reshape(*image.shape, -1)
        if "predict/kernel" not in self.arrays:
            return x
        near = self.masked("predict", self.scaled(image), (5, 5), "A")
        means = slice(self.config["mixtures"], 2 * self.config["mixtures"])
        x[..., means] += near.reshape(x[..., means].shape)
        return x

    def inputs(self, image):
        if self.config["input"] == "categorical":
            rows = image + np.arange(self.channels) * self.levels
            return self.arrays["embed_values/embedding"][rows].reshape(*image.shape[:2], -1)
        return self.scaled(image)

    def scaled(self, image):
        if not self.levels:
            return (image - self.units[0]) / self.units[1]
        last = self.levels - (self.config["output"] != "logistic_mixture")
        return 2 * image / last - 1

    def features(self, condition, coarse):
        terms = []
        if self.config["num_classes"]:
            terms.append(self.arrays["embed/embedding"][condition])
        if self.config["condition_vector"]:
            hidden = relu(self.dense("vector/layers_0", condition))
            terms.append(self.dense("vector/layers_2", hidden))
        if self.config["condition_map"]:
            terms.append(relu(self.plain("map/Conv_0", condition)))
        if coarse is not None:
            x = relu(self.plain("upsample/Conv_0", self.inputs(coarse)))
            number = 0
            while f"upsample/ConvTranspose_{number}/kernel" in self.arrays:
                x = relu(self.transposed(f"upsample/ConvTranspose_{number}", x))
                number += 1
            terms.append(x)
        return sum(terms) if terms else None

    def layer(self, name, x, features):
        k = self.config["kernel"]
        if f"{name}/reduce/kernel" in self.arrays:
            x = self.masked(f"{name}/reduce", relu(x))
            x = self.masked(f"{name}/convolve", relu(x), (k, k))
            if features is not None:
                x = x + features @ self.arrays[f"{name}/condition_to_map/kernel"]
            return relu(x)
        if f"{name}/lstm/h0" in self.arrays:
            return self.recurrence(row_lstm, f"{name}/lstm", x, features, (1, k))
        if f"{name}/seen_to_gates" in self.arrays:
            return self.linear(name, x, features)

        def diagonal(gates, kernel, h0, c0):
            return diagonal_lstm(gates, *kernel, h0, c0)

        left = self.recurrence(diagonal, f"{name}/left", x, features)
        flipped = features if features is None or features.ndim == 1 else features[:, ::-1]
        right = self.recurrence(diagonal, f"{name}/right", x[:, ::-1], flipped)[:, ::-1]
        left[1:] += right[:-1]
        return left

    def recurrence(self, run, name, x, features, size=(1, 1)):
        gates = self.masked(f"{name}/input_to_state", x, size, parts=4)
        if features is not None:
            gates = gates + features @ self.arrays[f"{name}/condition_to_state/kernel"]
        rest = [self.arrays[f"{name}/{part}"] for part in ("state_to_state", "h0", "c0")]
        return run(gates[None], *rest)[0]

    def linear(self, name, x, features):
        h, kernel = self.config["features"], self.arrays[f"{name}/gates/kernel"]
        last = full_kernel(kernel[:, 6 * h :], 2 * h, (1, 1), self.channels, "B", 2)[0, 0]
        gates = x @ np.hstack([kernel[:, : 6 * h], last]) + self.arrays[f"{name}/gates/bias"]
        if features is not None:
            gates = gates + features @ self.arrays[f"{name}/condition_to_gates/kernel"]
        states, seen = linear_sweep(gates[None, ..., : 6 * h])[0], np.zeros((*x.shape[:2], 3 * h))
        seen[1:, :, : 2 * h], seen[:, 1:, 2 * h :] = states[:-1, :, h:], states[:, :-1, :h]
        gates = np.tanh(gates[..., 6 * h :] + seen @ self.arrays[f"{name}/seen_to_gates"])
        return (1 + gates[..., :h]) / 2 * gates[..., h:]

    def gated(self, i, x, above, features):
        k, terms = self.config["kernel"], [0, 0]
        if features is not None:
            terms = [features @ self.arrays[f"condition_to_{n}/kernel"] for n in (0, i + 1)]
        if i == 0:
            above = np.zeros(x.shape)
            above[1:] = (x + terms[0])[:-1]
        kernel = full_kernel(self.arrays[f"vertical_{i}/kernel"], above.shape[-1], (k, k), 1)
        down = convolution(above, kernel) + self.arrays[f"vertical_{i}/bias"]
        across = down @ self.arrays[f"across_{i}/kernel"] + self.arrays[f"across_{i}/bias"]
        across = across + self.masked(f"horizontal_{i}", x, (1, k), parts=2) + terms[1]
        halves = (np.split(gates, 2, -1) for gates in (across, down))
        return [np.tanh(a) / (1 + np.exp(-b)) for a, b in halves]

    def masked(self, name, x, size=(1, 1), mask="B", parts=1):
        kernel = self.arrays[f"{name}/kernel"]
        kernel = full_kernel(kernel, x.shape[-1], size, self.channels, mask, parts)
        return convolution(x, kernel) + self.arrays[f"{name}/bias"]

    def plain(self, name, x):
        return convolution(x, self.arrays[f"{name}/kernel"]) + self.arrays[f"{name}/bias"]

    def dense(self, name, x):
        return x @ self.arrays[f"{name}/kernel"] + self.arrays[f"{name}/bias"]

    def transposed(self, name, x):
        kernel = self.arrays[f"{name}/kernel"]
        p, (height, width) = len(kernel) // 3, x.shape[:2]
        out = np.zeros((p * height, p * width, kernel.shape[-1]))
        for r, c in np.ndindex(*out.shape[:2]):
            for s, z in np.ndindex(height, width):
                t, u = p * s - r + 2 * p - 1, p * z - c + 2 * p - 1
                if 0 <= t < 3 * p and 0 <= u < 3 * p:
                    out[r, c] += x[s, z] @ kernel[t, u]
        return out + self.arrays[f"{name}/bias"]


def convolution(x, kernel):
    """A convolution that is padded with zeros, of `[H, W, inputs]`."""
    rows, columns = kernel.shape[:2]
    padded = np.pad(x, [(rows // 2,) * 2, (columns // 2,) * 2, (0, 0)])
    out = np.zeros((*x.shape[:2], kernel.shape[-1]))
    for r, c in np.ndindex(*x.shape[:2]):
        out[r, c] = np.tensordot(padded[r : r + rows, c : c + columns], kernel, 3)
    return out


def relu(x):
    return np.maximum(x, 0)
