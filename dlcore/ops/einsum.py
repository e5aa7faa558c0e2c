"""Einstein summation, lowered to permutations, sums, products and matrix products."""

from __future__ import annotations

import string
from collections.abc import Sequence
from math import prod
from typing import Any

from dlcore.errors import ArgumentError, ShapeError
from dlcore.ops.join import diagonal
from dlcore.tensor import Tensor

Labels = tuple[str, ...]
Term = tuple[Tensor, Labels]  # a tensor and one label per axis


def einsum(equation: str, *operands: Tensor) -> Tensor:
    """Einstein summation: products of elements with equal labels, summed over the labels that the result lacks.

    equation: one letter per axis, operands separated by commas, `->` before the result's labels (without it: every
    label that occurs once, in alphabetical order). `...` stands for axes that broadcast. A label repeated in one
    operand takes the diagonal. Operands are contracted from left to right.
    Raises ArgumentError for a malformed equation, ShapeError for sizes that do not fit.

    >>> einsum("bij,bjk->bik", dl.ones((2, 3, 4)), dl.ones((2, 4, 5))).shape
    (2, 3, 5)
    """
    inputs, output = _parse(equation, operands)
    _check_sizes(equation, inputs, operands)
    terms = [_diagonals(x, labels) for x, labels in zip(operands, inputs, strict=True)]
    while len(terms) > 1:
        kept = set(output).union(*(labels for _, labels in terms[2:]))
        terms[:2] = [_contract(terms[0], terms[1], kept)]
    x, labels = _sum_out(*terms[0], set(output))
    return _arranged(x, labels, output)


def _parse(equation: str, operands: Sequence[Tensor]) -> tuple[list[Labels], Labels]:
    """Labels of each operand and of the result; the axes of `...` get numbers, counted from the last."""
    left, arrow, right = equation.replace(" ", "").partition("->")
    texts = left.split(",")
    if len(texts) != len(operands):
        raise ArgumentError(f"einsum: {equation!r} names {len(texts)} operands; got {len(operands)}")
    for text in [*texts, right]:
        if set(text.replace("...", "", 1)) - set(string.ascii_letters):
            raise ArgumentError(f"einsum: {text!r} in {equation!r} has more than letters and one '...'")
    ranks = [_ellipsis_rank(t, x) for t, x in zip(texts, operands, strict=True)]
    inputs = [_labels(t, n) for t, n in zip(texts, ranks, strict=True)]
    if not arrow:
        letters = left.replace(",", "").replace(".", "")
        right = "..." * ("..." in left) + "".join(sorted(c for c in letters if letters.count(c) == 1))
    output = _labels(right, max(ranks))
    unknown = [c for c in output if not any(c in labels for labels in inputs)]
    if unknown or len(set(output)) != len(output):
        raise ArgumentError(f"einsum: each label of the result in {equation!r} must be unique and occur in an operand")
    return inputs, output


def _ellipsis_rank(text: str, x: Tensor) -> int:
    letters = len(text.replace("...", ""))
    if letters > x.ndim or (letters < x.ndim and "..." not in text):
        raise ShapeError(f"einsum: {text!r} has {letters} labels for an operand of shape {list(x.shape)}")
    return x.ndim - letters


def _labels(text: str, rank: int) -> Labels:
    head, dots, tail = text.partition("...")
    return (*head, *(str(i) for i in reversed(range(rank)) if dots), *tail)


def _check_sizes(equation: str, inputs: Sequence[Labels], operands: Sequence[Tensor]) -> None:
    sizes: dict[str, int] = {}
    for labels, x in zip(inputs, operands, strict=True):
        for label, size in zip(labels, x.shape, strict=True):
            known = sizes.get(label, 1 if label.isdigit() else size)
            if known != size and not (label.isdigit() and 1 in (known, size)):
                name = "..." if label.isdigit() else label
                raise ShapeError(f"einsum: label {name!r} of {equation!r} has sizes {known} and {size}")
            sizes[label] = size if known == 1 else known


def _diagonals(x: Tensor, labels: Labels) -> Term:
    """Take the diagonal of every label that occurs twice."""
    for label in labels:
        while labels.count(label) > 1:
            first = labels.index(label)
            second = labels.index(label, first + 1)
            x = diagonal(x, axis1=first, axis2=second)
            labels = (*labels[:first], *labels[first + 1 : second], *labels[second + 1 :], label)
    return x, labels


def _sum_out(x: Tensor, labels: Labels, kept: set[str]) -> Term:
    axes = tuple(i for i, label in enumerate(labels) if label not in kept)
    return (x.sum(axis=axes) if axes else x), tuple(c for c in labels if c in kept)


def _arranged(x: Tensor, labels: Labels, order: Sequence[str]) -> Tensor:
    """Axes in the given order; a label that `x` lacks becomes an axis of size 1."""
    present = [c for c in order if c in labels]
    axes = tuple(labels.index(c) for c in present)
    if axes != tuple(range(x.ndim)):
        x = x.permute(*axes)
    if len(present) == len(order):
        return x
    sizes = dict(zip(present, x.shape, strict=True))
    return x.reshape(tuple(sizes.get(c, 1) for c in order))


def _squeezed(x: Tensor, labels: Labels, other: Term) -> Term:
    """Drop axes of size 1 whose label is longer in the other operand: they broadcast."""
    sizes = dict(zip(other[1], other[0].shape, strict=True))
    kept = [i for i, c in enumerate(labels) if x.shape[i] == sizes.get(c, 1) or x.shape[i] != 1]
    if len(kept) == len(labels):
        return x, labels
    return x.reshape(tuple(x.shape[i] for i in kept)), tuple(labels[i] for i in kept)


def _contract(a: Term, b: Term, kept: set[str]) -> Term:
    """Product of two operands, summed over the labels that nobody needs any more."""
    a, b = _squeezed(*a, b), _squeezed(*b, a)
    x, xs = _sum_out(*a, kept.union(b[1]))
    y, ys = _sum_out(*b, kept.union(a[1]))
    shared = [c for c in xs if c in ys and c in kept]
    inner = [c for c in xs if c in ys and c not in kept]
    left = [c for c in xs if c not in ys]
    right = [c for c in ys if c not in xs]
    if not inner:
        order = [*shared, *left, *right]
        return _arranged(x, xs, order) * _arranged(y, ys, order), tuple(order)
    return _product(x, xs, y, ys, (shared, left, inner, right))


def _product(x: Tensor, xs: Labels, y: Tensor, ys: Labels, groups: tuple[list[str], ...]) -> Term:
    """Batched matrix product `[shared, left, inner] @ [shared, inner, right]`."""
    shared, left, inner, right = groups
    sizes: dict[Any, int] = {**dict(zip(xs, x.shape, strict=True)), **dict(zip(ys, y.shape, strict=True))}

    def shape(labels: Sequence[str]) -> tuple[int, ...]:
        return tuple(sizes[c] for c in labels)

    m, k, n = (prod(shape(group)) for group in (left, inner, right))
    p = _arranged(x, xs, [*shared, *left, *inner]).reshape(*shape(shared), m, k)
    q = _arranged(y, ys, [*shared, *inner, *right]).reshape(*shape(shared), k, n)
    out = (*shared, *left, *right)
    return (p @ q).reshape(shape(out)), out
