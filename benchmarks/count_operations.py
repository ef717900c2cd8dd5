"""Counts the operations and bytes of a JAX function from its trace, without running it.

Multiplications of matrices and convolutions are counted exactly, one multiply-add as two
operations. A convolution counts its whole kernel at every output, those that lie over padding
included; a masked matrix counts as a full one, which is what a machine computes. Everything else is
taken to be fused with them and to cost nothing.

Bytes are a model: a matmul outside a scan reads its operands and writes its result; an iteration of
a scan reads its constants, reads and writes what it carries, and reads and writes its slices of the
arrays that go along the scan.
"""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
from jax.extend.core import Jaxpr, Literal


class Matmul(NamedTuple):
    """`batch` products of `[rows, depth]` with `[depth, columns]`.

    `bytes` are those of both operands and the result.
    """

    batch: int
    rows: int
    depth: int
    columns: int
    bytes: int

    @property
    def operations(self) -> int:
        """Multiplications and additions."""
        return 2 * self.batch * self.rows * self.depth * self.columns


class Loop(NamedTuple):
    """A scan with no other scan inside.

    Attributes:
        length: iterations, which follow each other.
        matmuls: of one iteration.
        held: bytes that every iteration needs again: constants, read, and carries, read and
            written.
        streamed: bytes of one iteration's slices.
    """

    length: int
    matmuls: list[Matmul]
    held: int
    streamed: int

    @property
    def operations(self) -> int:
        """Of all iterations."""
        return self.length * sum(matmul.operations for matmul in self.matmuls)

    @property
    def bytes(self) -> int:
        """Of all iterations."""
        return self.length * (self.held + self.streamed)


class Program(NamedTuple):
    """What a function does.

    Attributes:
        matmuls: outside all scans.
        loops: the scans.
        chain: iterations of scans that follow each other because they need each other's results.
        reduced: bytes that are added up over devices.
    """

    matmuls: list[Matmul]
    loops: list[Loop]
    chain: int = 0
    reduced: int = 0

    @property
    def operations(self) -> int:
        """Of the whole function."""
        parts: list[Matmul | Loop] = [*self.matmuls, *self.loops]
        return sum(part.operations for part in parts)

    @property
    def bytes(self) -> int:
        """Moved by the whole function."""
        parts: list[Matmul | Loop] = [*self.matmuls, *self.loops]
        return sum(part.bytes for part in parts)

    @property
    def iterations(self) -> int:
        """Iterations of all scans, which a device executes one after the other."""
        return sum(loop.length for loop in self.loops)


def count(function: Callable[..., Any], *arguments: Any) -> Program:
    """Returns what `function` does with arguments of these shapes (arrays or `ShapeDtypeStruct`).

    Raises:
        NotImplementedError: it has a loop whose length is not known, or a branch.
    """
    return _of_jaxpr(jax.make_jaxpr(function)(*arguments).jaxpr)


def at_batch(batch: int, four: Program, eight: Program) -> Program:
    """Returns a program of any batch from those of 4 and 8, since every size is linear in it."""
    return jax.tree.map(lambda x, y: x + (y - x) * (batch - 4) // 4, four, eight)


def _of_jaxpr(jaxpr: Jaxpr) -> Program:
    matmuls, loops, reduced = [], [], 0
    before: dict[Any, int] = {}  # Iterations that each variable has to wait for.

    def latest(variables: Any) -> int:
        return max((before.get(v, 0) for v in variables if not isinstance(v, Literal)), default=0)

    for equation in _needed(jaxpr):
        part = _of_equation(equation)
        matmuls += part.matmuls
        loops += part.loops
        reduced += part.reduced
        end = latest(equation.invars) + part.chain
        before.update(dict.fromkeys(equation.outvars, end))
    return Program(matmuls, loops, latest(jaxpr.outvars), reduced)


def _needed(jaxpr: Jaxpr) -> list[Any]:
    """Returns the equations that the results depend on; a compiler drops the others."""
    wanted = {v for v in jaxpr.outvars if not isinstance(v, Literal)}
    kept = []
    for equation in reversed(jaxpr.eqns):
        if wanted.intersection(equation.outvars):
            kept.append(equation)
            wanted.update(v for v in equation.invars if not isinstance(v, Literal))
    return kept[::-1]


def _of_equation(equation: Any) -> Program:
    match equation.primitive.name:
        case "dot_general":
            return Program([_dot(equation)], [])
        case "conv_general_dilated":
            return Program([_convolution(equation)], [])
        case "psum" | "psum_invariant":
            return Program([], [], reduced=sum(map(_size, equation.invars)))
        case "scan":
            return _scan(equation)
        case "while" | "cond":
            raise NotImplementedError(f"{equation.primitive.name} cannot be counted from its trace")
    for value in equation.params.values():  # A function that is called: jit, remat, shard_map, …
        if isinstance(inner := getattr(value, "jaxpr", value), Jaxpr):
            return _of_jaxpr(inner)
    return Program([], [])


def _dot(equation: Any) -> Matmul:
    left, right = (v.aval.shape for v in equation.invars)
    (contracted, contracted_right), (together, together_right) = equation.params[
        "dimension_numbers"
    ]
    batch = math.prod(left[axis] for axis in together)
    depth = math.prod(left[axis] for axis in contracted)
    summed = {*contracted_right, *together_right}
    columns = math.prod(size for axis, size in enumerate(right) if axis not in summed)
    return Matmul(batch, math.prod(left) // (batch * depth), depth, columns, _bytes(equation))


def _convolution(equation: Any) -> Matmul:
    numbers, groups = equation.params["dimension_numbers"], equation.params["feature_group_count"]
    groups *= equation.params["batch_group_count"]
    kernel, (out,) = equation.invars[1].aval.shape, (v.aval for v in equation.outvars)
    features = kernel[numbers.rhs_spec[0]]
    rows, depth = out.size // features, math.prod(kernel) // features
    return Matmul(groups, rows, depth, features // groups, _bytes(equation))


def _scan(equation: Any) -> Program:
    inside, length = equation.params["jaxpr"].jaxpr, equation.params["length"]
    body = _of_jaxpr(inside)
    if body.loops:  # As with micro-batches: the inner scans, again and again.
        return Program(
            body.matmuls * length, body.loops * length, body.chain * length, body.reduced * length
        )

    def split(outer: Any, inner: Any) -> tuple[int, int]:
        """Returns the bytes of what is the same inside and outside, and those of slices."""
        slices = sum(_size(i) for o, i in zip(outer, inner, strict=True) if o.aval != i.aval)
        return sum(map(_size, inner)) - slices, slices

    held_in, streamed_in = split(equation.invars, inside.invars)
    held_out, streamed_out = split(equation.outvars, inside.outvars)
    loop = Loop(length, body.matmuls, held_in + held_out, streamed_in + streamed_out)
    return Program([], [loop], length, body.reduced * length)


def _bytes(equation: Any) -> int:
    return sum(map(_size, (*equation.invars, *equation.outvars)))


def _size(variable: Any) -> int:
    return variable.aval.size * variable.aval.dtype.itemsize
