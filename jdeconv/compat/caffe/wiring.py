"""From the layers of a definition to the steps of a net: which layer reads what, and which inputs there are."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from jdeconv.checks import refused
from jdeconv.compat.caffe.definition import Definition, LayerMessage, listing
from jdeconv.compat.caffe.layers import LAYERS, Layer, Maker
from jdeconv.compat.caffe.sources import READ, Known, head_shapes, source_shapes


@dataclass(frozen=True)
class Step:
    """One layer in its place."""

    message: LayerMessage
    maker: Maker
    bottoms: tuple[str, ...]
    tops: tuple[str, ...]
    loss_weights: tuple[float, ...]

    @property
    def name(self) -> str:
        """The layer's name."""
        return self.message.name


@dataclass(frozen=True)
class Wiring:
    """All steps, the known sizes of the inputs, and the tops that nobody reads."""

    inputs: dict[str, Known]
    steps: tuple[Step, ...]
    outputs: tuple[str, ...]


def wired(definition: Definition, own: Mapping[str, Any], until: str | None) -> Wiring:
    """The net of a definition, up to a layer; one error lists all that is missing."""
    inputs: dict[str, Known] = {}
    try:
        inputs.update(head_shapes(definition.head))
    except ValueError as error:
        raise refused("prototxt", f"{definition.file}: {error}") from None
    named = {name for layer in definition.layers for name in (layer.name, layer.type)}
    if unused := set(own) - named:
        reason = f"must name layers or types of the phase, got {sorted(unused)}"
        raise refused("layers", reason)
    steps: list[Step] = []
    problems: list[tuple[str, str]] = []  # each with the layer where it stands
    known = dict.fromkeys(inputs)
    for layer in definition.layers:
        mine = own.get(layer.name, own.get(layer.type))
        is_source = not layer.bottom and layer.type not in LAYERS
        if is_source and not isinstance(mine, Layer):  # a function needs bottoms
            reason = layer.problem if layer.type in READ or not layer.top else ""
            if reason or not layer.top:
                reason = reason or "it has neither bottoms nor tops"
                problems.append((layer.name, f"{layer.where}: {reason}"))
            try:
                shapes = source_shapes(layer)
            except ValueError as error:
                problems.append((layer.name, f"{layer.where}: {error}"))
                shapes = [None] * len(layer.top)
            inputs.update(zip(layer.top, shapes, strict=True))
            known.update(dict.fromkeys(layer.top))
            continue
        for bottom in layer.bottom:
            if bottom in known:
                continue
            source = definition.sources.get(bottom)
            if source is None:
                reason = f"bottom {bottom!r} is no top of a layer before"
                problems.append((layer.name, f"{layer.where}: {reason}"))
            else:
                shapes = source_shapes(source)
                inputs[bottom] = shapes[list(source.top).index(bottom)]
            known[bottom] = None
        if mine is None and layer.type not in LAYERS:
            problems.append((layer.name, f"{layer.where}: {_unknown(layer)}"))
        elif mine is None and layer.problem:
            problems.append((layer.name, f"{layer.where}: {layer.problem}"))
        is_loss = layer.type.endswith("Loss")
        tops = tuple(layer.top) or (layer.name,) * is_loss  # Caffe adds the top of a loss
        for top in tops:
            if top in known and top not in layer.bottom:
                reason = f"top {top!r} is one of another layer already"
                problems.append((layer.name, f"{layer.where}: {reason}"))
            known[top] = None
        maker = LAYERS.get(layer.type, _nothing) if mine is None else _maker(mine)
        weights = tuple(layer.loss_weight) or tuple(
            float(is_loss and i == 0) for i in range(len(tops))
        )
        if len(weights) != len(tops):
            reason = f"loss_weight needs one value for each top, got {list(weights)}"
            problems.append((layer.name, f"{layer.where}: {reason}"))
        down = () if layer.is_v1 else layer.propagate_down
        if down and len(down) != len(layer.bottom):
            reason = f"propagate_down needs one value for each bottom, got {list(down)}"
            problems.append((layer.name, f"{layer.where}: {reason}"))
        steps.append(Step(layer, maker, tuple(layer.bottom), tops, weights))
    if until is not None:
        steps, inputs = _trunk(steps, inputs, until)
        names = {step.name for step in steps}
        problems = [problem for problem in problems if problem[0] in names]
    if problems:
        texts = [text for _, text in problems]
        raise refused("prototxt", f"{definition.file}: {listing(texts)}")
    available = dict.fromkeys(inputs)
    for step in steps:
        for bottom in step.bottoms:
            available.pop(bottom, None)
        available.update(dict.fromkeys(step.tops))
    return Wiring(inputs, tuple(steps), tuple(available))


def _unknown(layer: LayerMessage) -> str:
    meant = [name for name in LAYERS if name.lower() == layer.type.lower()]
    remedy = f"pass layers={{{layer.type!r}: function}}"
    return f"there is no such type; {f'did you mean {meant[0]!r}?' if meant else remedy}"


def _nothing(layer: Any, bottoms: Any) -> Layer:
    raise NotImplementedError(layer.type)


def _maker(mine: Callable | Layer) -> Maker:
    """The maker of a layer that the caller brings: a `Layer`, or a function of the bottoms."""
    if isinstance(mine, Layer):
        return lambda layer, bottoms: mine

    def apply(_, bottoms):
        tops = mine(*bottoms)
        return tops if isinstance(tops, list | tuple) else [tops]

    return lambda layer, bottoms: Layer(apply)


def _trunk(
    steps: list[Step], inputs: dict[str, Known], until: str
) -> tuple[list[Step], dict[str, Known]]:
    """The steps and inputs that a layer, or the last layer that writes a top, needs."""
    ends = [i for i, step in enumerate(steps) if step.name == until]
    ends = ends or [i for i, step in enumerate(steps) if until in step.tops]
    if not ends:
        raise refused("until", f"must name a layer or a top, got {until!r}")
    needed, kept = set(steps[ends[-1]].tops), []
    for step in reversed(steps[: ends[-1] + 1]):
        if needed & {*step.tops}:
            kept.append(step)
            needed |= {*step.bottoms}
    return kept[::-1], {name: shape for name, shape in inputs.items() if name in needed}
