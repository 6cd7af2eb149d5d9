"""From the layers of a definition to the steps of a net: which layer reads what, and which inputs there are."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from jdeconv.checks import refused
from jdeconv.compat.caffe.definition import Definition, LayerMessage, listing
from jdeconv.compat.caffe.layers import LAYERS, Layer, Maker, as_layer
from jdeconv.compat.caffe.sources import Known, head_shapes, source_shapes


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
    named = {name for layer in definition.layers for name in (layer.name, layer.type)}
    if unused := set(own) - named:
        reason = f"must name layers or types of the phase, got {sorted(unused)}"
        raise refused("layers", reason)
    draft = _Draft(definition)
    for layer in definition.layers:
        mine = own.get(layer.name, own.get(layer.type))
        if layer.bottom or layer.type in LAYERS or isinstance(mine, Layer):
            draft.add_step(layer, mine)
        else:  # a function of the caller's needs bottoms
            draft.add_source(layer)
    steps, inputs, problems = draft.steps, draft.inputs, draft.problems
    if until is not None:
        steps, inputs = _trunk(steps, inputs, until)
        names = {step.name for step in steps}
        problems = [problem for problem in problems if problem[0] in names]
    if problems:
        texts = [text for _, text in problems]
        raise refused("prototxt", f"{definition.file}: {listing(texts)}")
    return Wiring(inputs, tuple(steps), _unread(steps, inputs))


class _Draft:
    """A net while its layers are put in place.

    Attributes:
      inputs, steps: those found so far.
      problems: what is wrong, each with the name of its layer.
    """

    def __init__(self, definition: Definition) -> None:
        try:
            self.inputs: dict[str, Known] = dict(head_shapes(definition.head))
        except ValueError as error:
            raise refused("prototxt", f"{definition.file}: {error}") from None
        self.steps: list[Step] = []
        self.problems: list[tuple[str, str]] = []
        self._sources = definition.sources
        self._tops: set[str] = set(self.inputs)

    def add_source(self, layer: LayerMessage) -> None:
        """Make the tops of a data layer inputs of the net."""
        if not layer.top:
            self._refuse(layer, layer.problem or "it has neither bottoms nor tops")
        elif layer.type == "Input" and layer.problem:  # of other types only sizes matter
            self._refuse(layer, layer.problem)
        self._add_inputs(layer, layer.top)

    def add_step(self, layer: LayerMessage, mine: Callable | Layer | None) -> None:
        """Put in a layer that computes something, by its type or by what the caller brings for it."""
        for bottom in layer.bottom:
            self._find(layer, bottom)
        if mine is None and layer.type not in LAYERS:
            self._refuse(layer, _unknown(layer))
        elif mine is None and layer.problem:
            self._refuse(layer, layer.problem)
        is_loss = layer.type.endswith("Loss")
        tops = tuple(layer.top) or (layer.name,) * is_loss  # Caffe adds the top of a loss
        for top in tops:
            if top in self._tops and top not in layer.bottom:
                self._refuse(layer, f"top {top!r} is one of another layer already")
            self._tops.add(top)
        weights = tuple(layer.loss_weight) or tuple(
            float(is_loss and i == 0) for i in range(len(tops))
        )
        for name, values, kind, count in (
            ("loss_weight", weights, "top", len(tops)),
            ("propagate_down", layer.propagate_down, "bottom", len(layer.bottom)),
        ):
            if len(values) != count:
                self._refuse(layer, f"{name} needs one value for each {kind}, got {list(values)}")
        maker = LAYERS.get(layer.type, _nothing) if mine is None else lambda *_: as_layer(mine)
        self.steps.append(Step(layer, maker, tuple(layer.bottom), tops, weights))

    def _find(self, layer: LayerMessage, bottom: str) -> None:
        """A bottom is a top of a layer before, or of a data layer of another phase or stage."""
        if bottom in self._tops:
            return
        if bottom in self._sources:
            self._add_inputs(self._sources[bottom], [bottom])
        else:
            self._refuse(layer, f"bottom {bottom!r} is no top of a layer before")
            self._tops.add(bottom)

    def _add_inputs(self, layer: LayerMessage, names: Iterable[str]) -> None:
        shapes: list[Known] = [None] * len(layer.top)
        try:
            shapes = source_shapes(layer)
        except ValueError as error:
            self._refuse(layer, str(error))
        found = dict(zip(layer.top, shapes, strict=True))
        self.inputs.update((name, found[name]) for name in names)
        self._tops.update(names)

    def _refuse(self, layer: LayerMessage, reason: str) -> None:
        self.problems.append((layer.name, f"{layer.where}: {reason}"))


def _unread(steps: Iterable[Step], inputs: Iterable[str]) -> tuple[str, ...]:
    """The inputs and tops that no layer reads."""
    available = dict.fromkeys(inputs)
    for step in steps:
        for bottom in step.bottoms:
            available.pop(bottom, None)
        available.update(dict.fromkeys(step.tops))
    return tuple(available)


def _unknown(layer: LayerMessage) -> str:
    meant = [name for name in LAYERS if name.lower() == layer.type.lower()]
    remedy = f"pass layers={{{layer.type!r}: function}}"
    return f"there is no such type; {f'did you mean {meant[0]!r}?' if meant else remedy}"


def _nothing(layer: Any, bottoms: Any) -> Layer:
    raise NotImplementedError(layer.type)


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
