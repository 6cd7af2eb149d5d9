"""Losses, and Accuracy: one number for all items, without gradients to labels."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax.lax import stop_gradient

from jdeconv.checks import refused
from jdeconv.compat.caffe.layers.base import (
    Made,
    Shape,
    axis_of,
    maker,
    misfit,
    need_same,
    whole,
)

FULL, VALID, BATCH_SIZE, NONE = range(4)
FLT_MIN = 1.1754943508222875e-38  # Caffe takes the logarithm of nothing smaller
LOG_THRESHOLD = 1e-20  # of MultinomialLogisticLoss
CONTRASTIVE_EPS = 1e-4  # which Caffe adds to the distance in the backward pass only


def _with_gradient(value: jax.Array, surrogate: jax.Array) -> jax.Array:
    """A value whose gradient is that of another expression."""
    return stop_gradient(value) + (surrogate - stop_gradient(surrogate))


def _divisor(message: Any, default: int, outer: int, inner: int, valid: Any) -> Any:
    """What a sum over all labels is divided by, at least 1; `valid` is how many are not ignored."""
    mode = default
    if message.HasField("normalization"):
        mode = message.normalization
    elif message.HasField("normalize"):
        mode = VALID if message.normalize else BATCH_SIZE
    found = {FULL: outer * inner, VALID: valid, BATCH_SIZE: outer, NONE: 1}[mode]
    return jnp.maximum(found, 1)


def _rows(layer: Any, axis: int, bottoms: Sequence[Shape]) -> tuple[int, int, int]:
    """Of scores, the sizes before the axis, of it, and behind it; there is a label for each of the others."""
    axis = axis_of("axis", axis, len(bottoms[0]))
    shape, labels = bottoms
    outer, inner = math.prod(shape[:axis]), math.prod(shape[axis + 1 :])
    if math.prod(labels) != outer * inner:
        raise misfit(layer, bottoms, f"needs a label for each of {outer} x {inner} places")
    return outer, shape[axis], inner


def _items(layer: Any, bottoms: Sequence[Shape]) -> tuple[int, int]:
    """Of scores, the number of items, each with a label, and of classes."""
    items = math.prod(bottoms[0][:1])
    if math.prod(bottoms[1]) != items:
        raise misfit(layer, bottoms, f"needs a label for each of {items} items")
    return items, math.prod(bottoms[0][1:])


def _valid(message: Any, labels: jax.Array) -> jax.Array:
    """Which labels are not ignored."""
    if message.HasField("ignore_label"):
        return labels != message.ignore_label
    return jnp.ones(labels.shape, bool)


def _chosen(scores: jax.Array, labels: jax.Array) -> jax.Array:
    """The score of each label, (outer, classes, inner) -> (outer, inner); NaN for a label that is none."""
    labels = jnp.where(labels < 0, scores.shape[1], labels)
    return jnp.take_along_axis(scores, labels[:, None], 1, mode="fill")[:, 0]


@maker("SoftmaxWithLoss", bottoms=2)
def softmax_with_loss(layer: Any, *bottoms: Shape) -> Made:
    """SoftmaxWithLoss: the mean of -log(softmax) at the labels; the second top is the softmax.

    A label outside of the classes makes it NaN. SegNet's weight_by_label_freqs weights each label's term.
    """
    outer, classes, inner = _rows(layer, layer.softmax_param.axis, bottoms)
    message = layer.loss_param
    weights = list(message.class_weighting) if message.weight_by_label_freqs else []
    if message.weight_by_label_freqs and len(weights) != classes:
        raise refused("class_weighting", f"needs {classes} values, got {len(weights)}")

    def apply(scores, labels):
        labels = whole(labels).reshape(outer, inner)
        valid = _valid(message, labels)
        logs = jax.nn.log_softmax(scores.reshape(outer, classes, inner), 1)
        picked = _chosen(logs, jnp.where(valid, labels, 0))
        terms = _with_gradient(jnp.maximum(picked, math.log(FLT_MIN)), picked)
        if weights:
            terms = terms * jnp.asarray(weights, terms.dtype)[jnp.where(valid, labels, 0)]
        total = -jnp.where(valid, terms, 0).sum()
        loss = total / _divisor(message, VALID, outer, inner, valid.sum())
        softmax = stop_gradient(jnp.exp(logs)).reshape(scores.shape)
        return [loss, softmax][: max(1, len(layer.top))]

    return apply


@maker("SigmoidCrossEntropyLoss", bottoms=2)
def sigmoid_cross_entropy(layer: Any, *bottoms: Shape) -> Made:
    """SigmoidCrossEntropyLoss: the cross entropy of sigmoids and targets, summed over each item."""
    (shape, targets), message = bottoms, layer.loss_param
    if math.prod(shape) != math.prod(targets):
        raise misfit(layer, bottoms, "needs a target for each number")
    outer, inner = shape[0] if shape else 1, math.prod(shape[1:])

    def apply(x, t):
        t = stop_gradient(t).reshape(shape)
        valid = _valid(message, t.astype(jnp.int32))
        total = jnp.where(valid, jax.nn.softplus(x) - x * t, 0).sum()
        return total / _divisor(message, BATCH_SIZE, outer, inner, valid.sum())

    return apply


@maker("EuclideanLoss", bottoms=2)
def euclidean(layer: Any, *bottoms: Shape) -> Made:
    """EuclideanLoss: half the squared distance, over the number of items."""
    if bottoms[0][:1] != bottoms[1][:1] or math.prod(bottoms[0]) != math.prod(bottoms[1]):
        raise misfit(layer, bottoms, "shapes must hold as many numbers for each item")
    items = bottoms[0][0] if bottoms[0] else 1
    return lambda a, b: ((a - b.reshape(a.shape)) ** 2).sum() / (2 * items)


@maker("HingeLoss", bottoms=2)
def hinge(layer: Any, *bottoms: Shape) -> Made:
    """HingeLoss: what each score lacks of 1 on its side of zero, summed or squared, over the items."""
    (items, classes), norm = _items(layer, bottoms), layer.hinge_loss_param.norm

    def apply(x, labels):
        x = x.reshape(items, classes)
        own = whole(labels).reshape(items, 1) == jnp.arange(classes)[None]
        lack = jax.nn.relu(1 + jnp.where(own, -x, x))
        return (lack if norm == 1 else lack**2).sum() / items

    return apply


@maker("ContrastiveLoss", bottoms=3)
def contrastive(layer: Any, *bottoms: Shape) -> Made:
    """ContrastiveLoss: near pairs should be near, and others a margin apart."""
    message, (shape, _, similar) = layer.contrastive_loss_param, bottoms
    need_same(layer, bottoms[:2])
    items = shape[0] if shape else 1
    if math.prod(shape[2:]) != 1 or math.prod(similar) != items:
        raise misfit(layer, bottoms, "needs (n, c), (n, c) and a number for each item")

    def apply(*bottoms):
        a, b, y = (bottom.reshape(items, -1) for bottom in bottoms)
        squares = ((a - b) ** 2).sum(1)
        fixed = stop_gradient(squares)
        distance = jnp.sqrt(fixed)
        if message.legacy_version:
            lack = jnp.maximum(message.margin - fixed, 0)
            apart, slope = lack, -1.0
        else:
            lack = jnp.maximum(message.margin - distance, 0)
            apart, slope = lack**2, -lack / (distance + CONTRASTIVE_EPS)
        near = stop_gradient(y)[:, 0].astype(jnp.int32) != 0
        value = jnp.where(near, fixed, apart).sum() / items / 2
        rates = jnp.where(near, 1.0, jnp.where(lack > 0, slope, 0.0))
        return _with_gradient(value, (rates * squares).sum() / items / 2)

    return apply


@maker("MultinomialLogisticLoss", bottoms=2)
def multinomial(layer: Any, *bottoms: Shape) -> Made:
    """MultinomialLogisticLoss: the mean of -log of the probability at the label."""
    items, classes = _items(layer, bottoms)

    def apply(x, labels):
        picked = _chosen(x.reshape(items, classes, 1), whole(labels).reshape(items, 1))
        picked = _with_gradient(jnp.maximum(picked, LOG_THRESHOLD), picked)
        return -jnp.log(picked).sum() / items

    return apply


@maker("Accuracy", bottoms=2)
def accuracy(layer: Any, *bottoms: Shape) -> Made:
    """Accuracy: the share of labels that are among the top_k scores; the second top has it for each class."""
    message = layer.accuracy_param
    outer, classes, inner = _rows(layer, message.axis, bottoms)
    if not 1 <= message.top_k <= classes:
        raise refused("top_k", f"must be 1 to {classes}, got {message.top_k}")

    def apply(scores, labels):
        scores = stop_gradient(scores).reshape(outer, classes, inner)
        labels = whole(labels).reshape(outer, inner)
        valid = _valid(message, labels)
        own = _chosen(scores, jnp.where(valid, labels, 0))
        better = (scores >= own[:, None]).sum(1) - 1  # those that are equal count as better
        right = (better < message.top_k) & valid
        share = right.sum() / jnp.maximum(valid.sum(), 1)
        tops = [share.astype(scores.dtype)]
        if len(layer.top) > 1:
            of_class = (labels[:, None] == jnp.arange(classes)[None, :, None]) & valid[:, None]
            counts = of_class.sum((0, 2))
            rights = (of_class & right[:, None]).sum((0, 2))
            tops.append((rights / jnp.maximum(counts, 1)).astype(scores.dtype))
        return tops

    return apply
