"""A net read from Caffe's own files: a pytree of blobs and pure functions of it."""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import jax

from jdeconv import checks
from jdeconv.checks import array, flag, integers, listed, one_of, refused, reporting, shown
from jdeconv.compat.caffe.align import offsets
from jdeconv.compat.caffe.definition import read, read_text
from jdeconv.compat.caffe.layers import Layer, Shape
from jdeconv.compat.caffe.plan import Blob, Places, Plan, named, need_tops, planned
from jdeconv.compat.caffe.sources import Known
from jdeconv.compat.caffe.summary import table
from jdeconv.compat.caffe.weights import read_params, write_weights
from jdeconv.compat.caffe.wiring import Step, wired

Params = dict[str, list[jax.Array]]
PHASES = ("TRAIN", "TEST")


@dataclass(frozen=True, eq=False, repr=False)
class Net:
    """A net of Caffe: ``net(net.params, {"data": x})`` returns the net's top blobs by name.

    Args:
      inputs: the shape of each input, by name. Shapes and sizes that the file does not give are None.
      outputs: the names of the tops that no layer reads.
      params: the blobs of each layer that has some, by the name of the layer. A blob that layers share is with
        the first of them. None if sizes of inputs are unknown; `init` then returns params.
      phase: "TRAIN" or "TEST".
      name: the file's name for the net.
      steps: the layers, in the order of the file.
      plan: the layers for the known sizes of the inputs; None if some are unknown.
      source: the text, and the arguments of `load`.
      filled: the layers that have no weights in the file; fillers made their blobs.

    Calls are pure functions of params and inputs, so jit, grad, vmap and the other transformations work. The
    inputs may have any sizes that fit the shapes of the params. A net can be pickled.
    """

    inputs: dict[str, Known]
    outputs: tuple[str, ...]
    params: Params | None = field(repr=False)
    phase: str
    name: str
    steps: tuple[Step, ...] = field(repr=False)
    plan: Plan | None = field(repr=False)
    source: dict[str, Any] = field(repr=False)
    filled: tuple[str, ...] = ()

    @reporting()
    def __call__(
        self,
        params: Params,
        inputs: Mapping[str, jax.Array],
        tops: Sequence[str] | None = None,
        *,
        key: jax.Array | None = None,
    ) -> dict[str, jax.Array]:
        """Returns tops by name: those that no layer reads, or the ones that you name.

        Layers that draw random numbers, such as Dropout in phase TRAIN, need a key.
        """
        return self.apply(params, inputs, tops, key=key)[0]

    @reporting()
    def apply(
        self,
        params: Params,
        inputs: Mapping[str, jax.Array],
        tops: Sequence[str] | None = None,
        *,
        key: jax.Array | None = None,
    ) -> tuple[dict[str, jax.Array], Params]:
        """Returns the tops by name, and the params with the statistics of this batch."""
        wanted = self.outputs if tops is None else tuple(listed("tops", tops, "names"))
        known = {*self.inputs, *(top for step in self.steps for top in step.tops)}
        if unknown := set(wanted) - known:
            raise refused("tops", f"must be of {sorted(known)}, got {sorted(unknown)}")
        blobs, new, _ = self._run(params, inputs, key)
        return {name: blobs[name] for name in wanted}, new

    @reporting()
    def loss(
        self, params: Params, inputs: Mapping[str, jax.Array], *, key: jax.Array | None = None
    ) -> tuple[jax.Array, Params]:
        """Returns the sum of tops times their loss_weight, and the params with the statistics of this batch.

        Differentiation: ``jax.value_and_grad(net.loss, has_aux=True)``. No gradient reaches statistics.
        """
        _, new, terms = self._run(params, inputs, key)
        if not terms:
            raise refused("net", "has no top with a loss_weight, and no layer that is a loss")
        return sum(weight * top.sum() for weight, top in terms), new  # pyright: ignore[reportReturnType]

    @reporting()
    def init(self, key: jax.Array, shapes: Mapping[str, Sequence[int]] | None = None) -> Params:
        """Returns params that the fillers make. `shapes` gives the sizes that the file does not give."""
        return _drawn(self._planned(shapes).blobs, checks.key(key), self.source["file"])

    @property
    def blobs(self) -> dict[str, list[Blob]]:
        """The shape, filler and multipliers of each blob, in the structure of params."""
        return self._planned(None).blobs

    @property
    def lr_mult(self) -> dict[str, list[float]]:
        """The factor of the learning rate for each blob; 0 for statistics."""
        return {name: [blob.lr_mult for blob in blobs] for name, blobs in self.blobs.items()}

    @property
    def decay_mult(self) -> dict[str, list[float]]:
        """The factor of the weight decay for each blob."""
        return {name: [blob.decay_mult for blob in blobs] for name, blobs in self.blobs.items()}

    @reporting()
    def summary(self, shapes: Mapping[str, Sequence[int]] | None = None) -> str:
        """Returns a table of the layers: tops, parameters and multiply-adds, for inputs of these shapes."""
        known = self.inputs | _shapes(shapes, self.inputs)
        return table(self.steps, self._planned(shapes), known)

    @reporting()
    def save(self, params: Params, path: str | os.PathLike) -> None:
        """Writes params to a file of weights that Caffe and OpenCV read, in float32.

        A path that ends in .h5 or .hdf5 gets HDF5, every other one a caffemodel. A blob that layers share is
        written with each.

        Raises:
          ValueError: for params that are not this net's, and a file that cannot be written.
          ModuleNotFoundError: without protobuf or h5py, which are in the extra "caffe".

        Example:
          >>> import pathlib, tempfile
          >>> text = '''
          ...     layer { name: "x" type: "Input" top: "x" input_param { shape { dim: 1 dim: 2 } } }
          ...     layer { name: "y" type: "InnerProduct" bottom: "x" top: "y"
          ...       inner_product_param { num_output: 1 bias_term: false } }'''
          >>> net, path = load(text), pathlib.Path(tempfile.mkdtemp(), "y.caffemodel")
          >>> net.save({"y": [jax.numpy.array([[3.0, 4.0]])]}, path)
          >>> load(text, path).params["y"][0].tolist()
          [[3.0, 4.0]]
        """
        self._check_tree(params)
        places, layers = Places(), []
        for step, made in zip(self.steps, self._planned(None).layers, strict=True):
            if blobs := _learned(params, step, made, places.of(step, made)):
                layers.append((step.name, step.message.type, blobs))
        write_weights(path, layers)

    def __repr__(self) -> str:
        inputs = ", ".join(f"{name} {_readable(shape)}" for name, shape in self.inputs.items())
        count = "sizes open"
        if self.params is not None:
            count = f"{sum(a.size for blobs in self.params.values() for a in blobs):,} parameters"
        if self.params is not None and 0 < len(self.filled) < len(self.params):
            count += f", those of {', '.join(self.filled)} from fillers"
        called = f"{self.name!r}, " if self.name else ""
        return (
            f"Net({called}{self.phase}, {len(self.steps)} layers, {count}; inputs {inputs or 'none'}; "
            f"outputs {', '.join(self.outputs) or 'none'})"
        )

    def __reduce__(self) -> tuple[Callable, tuple]:
        return _loaded, (self.source, self.params, self.filled)

    def _planned(self, shapes: Mapping[str, Sequence[int]] | None) -> Plan:
        if self.plan is not None and not shapes:
            return self.plan
        known, file = self.inputs | _shapes(shapes, self.inputs), self.source["file"]
        if missing := _unsized(known):
            example = ", ".join(f"{name!r}: (...)" for name in missing)
            reason = f"must have the sizes of {missing}, which {file} does not say: {{{example}}}"
            raise refused("shapes", reason)
        return planned(self.steps, known, _error_of(file))

    def _check_tree(self, params: Any) -> None:
        if params is None and self.params is None:
            reason = (
                "are not there yet: the net's sizes are open; call net.init(key, shapes) for them"
            )
            raise refused("params", reason)
        if not isinstance(params, Mapping):
            reason = f"must be a dict of lists of arrays, such as net.params, got {shown(params)}"
            raise refused("params", reason, TypeError)

    def _run(
        self, params: Params, inputs: Mapping[str, jax.Array], key: Any
    ) -> tuple[dict[str, jax.Array], Params, list[tuple[float, jax.Array]]]:
        """All blobs, the params with changed statistics, and the tops that count as losses."""
        blobs = self._checked(inputs)
        self._check_tree(params)
        key = None if key is None else checks.key(key)
        places, terms = Places(), []
        new = {name: list(arrays) for name, arrays in params.items()}
        for index, step in enumerate(self.steps):
            bottoms = [
                blobs[name] if down else jax.lax.stop_gradient(blobs[name])
                for name, down in zip(step.bottoms, step.message.propagate_down, strict=True)
            ]
            with named(step, lambda reason: refused("inputs", f"do not fit: {reason}")):
                made = step.maker(step.message, [a.shape for a in bottoms])
                if made.random and key is None:
                    raise refused("key", f"is needed: {step.message.where} draws numbers")
                drawn = None if key is None else jax.random.fold_in(key, index)
                found = places.of(step, made)
                tops, changed = made(_learned(params, step, made, found), bottoms, drawn)
                need_tops(step, len(tops))
            if made.updates:
                for (name, place), value in zip(found, changed, strict=True):
                    new[name][place] = value
            blobs.update(zip(step.tops, tops, strict=True))
            weighted = zip(step.loss_weights, tops, strict=True)
            terms += [(weight, top) for weight, top in weighted if weight]
        return blobs, new, terms

    def _checked(self, inputs: Any) -> dict[str, jax.Array]:
        if not isinstance(inputs, Mapping):
            names = ", ".join(f"{name!r}: ..." for name in self.inputs)
            reason = f"must be a dict of arrays, {{{names}}}, got {shown(inputs)}"
            raise refused("inputs", reason, TypeError)
        if set(inputs) != set(self.inputs):
            raise refused("inputs", f"need {sorted(self.inputs)}, got {sorted(inputs)}")
        blobs = {name: array("inputs", a) for name, a in inputs.items()}
        for name, a in blobs.items():
            known = self.inputs[name]
            if known is None or len(known) != 4 or None in known:
                continue
            if a.ndim != 4 or a.shape[1] != known[1]:
                reason = f"need shape {known} for {name!r} (the batch and the space may differ)"
                raise refused("inputs", f"{reason}, got {a.shape}")
        return blobs


@reporting()
def load(
    prototxt: str | os.PathLike,
    caffemodel: str | os.PathLike | None = None,
    *,
    key: jax.Array | None = None,
    phase: str = "TEST",
    layers: Mapping[str, Callable | Layer] | None = None,
    until: str | None = None,
    shapes: Mapping[str, Sequence[int]] | None = None,
    align: bool = False,
) -> Net:
    """Returns a net, from its definition and its weights.

    Layers that read data, such as Data, and Python without bottoms, become inputs of the net. Their shapes come
    from the fields of the layer, from `shapes`, or from the arrays of a call. A file may have data layers for
    other phases or stages only; those that the net needs become inputs too.

    Args:
      prototxt: the definition, of today's layers or of V1's: a path, or the text itself.
      caffemodel: the weights, a caffemodel or HDF5; None lets the fillers make them. Layers that the file lacks
        keep their fillers, as in Caffe; `net.filled` names them, and a warning does in phase "TEST".
      key: for the fillers; None is `jax.random.key(0)`.
      phase: "TEST" or "TRAIN"; it decides which layers there are, and what Dropout and BatchNorm do. Stages and
        a level are those of the file, such as ``state { stage: "deploy" }``.
      layers: layers that the file needs and that are not known here, by type or by name: a function of the
        bottoms that gives a top or a list of them, or a `Layer`, which may have blobs.
      until: the layer, or else the top, at which the net ends; what it does not need is left out.
      shapes: the shapes of inputs, by name, instead of those in the file.
      align: whether Crop layers without an offset align their bottoms, as in HED's Caffe. With False the offset
        is 0, as in BVLC's Caffe, and a warning says if that makes a difference.

    Returns:
      The `Net`.

    Raises:
      ValueError: if a file cannot be read, a layer or a field is not known, a blob is missing or has another
        shape, sizes do not fit, a top or all blobs together have more than 2**29 numbers, or there are more
        than 2**13 layers. The message names file, line, layer and field.
      TypeError: if a path is not a path, or a key is not a key.
      ModuleNotFoundError: without protobuf, which is in the extra "caffe".

    Example: A layer that adds neighbors, from a text of two layers.
      >>> import jax.numpy as jnp
      >>> net = load('''
      ...     layer { name: "x" type: "Input" top: "x" input_param { shape { dim: 1 dim: 1 dim: 4 } } }
      ...     layer { name: "y" type: "Convolution" bottom: "x" top: "y" convolution_param {
      ...       num_output: 1 kernel_size: 2 weight_filler { type: "constant" value: 1 } } }''')
      >>> net(net.params, {"x": jnp.array([[[1.0, 2.0, 3.0, 4.0]]])})["y"].tolist()
      [[[3.0, 5.0, 7.0]]]
    """
    drawing = jax.random.key(0) if key is None else checks.key(key)
    one_of("phase", phase, PHASES)
    flag("align", align)
    if not isinstance(layers, Mapping | None):
        reason = f"must be a dict of functions or Layers by type or name, got {shown(layers)}"
        raise refused("layers", reason, TypeError)
    for name, layer in (layers or {}).items():
        if not callable(layer):
            reason = f"must hold functions or Layers, got {shown(layer)} for {name!r}"
            raise refused("layers", reason, TypeError)
    if not isinstance(until, str | None):
        raise refused("until", f"must be a layer's or a top's name, got {shown(until)}", TypeError)
    text, file = read_text(prototxt)
    source = {
        "text": text, "file": file, "phase": phase, "layers": dict(layers or {}),
        "until": until, "shapes": shapes, "align": align,
    }  # fmt: skip
    net = _loaded(source, None)
    if net.plan is not None:
        return _filled(net, caffemodel, drawing)
    if caffemodel is not None:
        net.init(drawing)  # which says what sizes are missing
    return net


def _filled(net: Net, caffemodel: Any, key: jax.Array) -> Net:
    """The net with params from a file of weights and, for layers that it lacks, from their fillers."""
    blobs, file = net.blobs, net.source["file"]
    known = {} if caffemodel is None else read_params(caffemodel, blobs, file)
    filled = tuple(name for name in blobs if name not in known)
    if caffemodel is not None and filled and net.phase == "TEST":
        text = f"layers {shown(list(filled))} are not in {str(caffemodel)!r} and keep their fillers"
        warnings.warn(text, stacklevel=4)
    return replace(net, params=_drawn(blobs, key, file, known), filled=filled)


def _loaded(source: dict[str, Any], params: Params | None, filled: tuple[str, ...] = ()) -> Net:
    """The net of a text, with these params."""
    definition = read(source["text"], source["file"], source["phase"] == "TRAIN")
    wiring = wired(definition, source["layers"], source["until"])
    inputs = wiring.inputs | _shapes(source["shapes"], wiring.inputs)
    error = _error_of(source["file"])
    derived = offsets(wiring.steps, inputs, source["align"], error)
    for step in wiring.steps:
        if step.name in derived:
            step.message.set_offset(derived[step.name])
    plan = None if _unsized(inputs) else planned(wiring.steps, inputs, error)
    head = (wiring.outputs, params, source["phase"], definition.head.name)
    return Net(inputs, *head, wiring.steps, plan, source, filled)


def _unsized(inputs: Mapping[str, Known]) -> list[str]:
    """The inputs whose sizes are not all known."""
    return [name for name, shape in inputs.items() if shape is None or None in shape]


def _error_of(file: str) -> Callable[[str], Exception]:
    """The error for a reason that lies in a definition."""
    return lambda reason: refused("prototxt", f"{file}: {reason}")


def _shapes(shapes: Any, inputs: Mapping[str, Known]) -> dict[str, Shape]:
    """What the caller says about the inputs' shapes."""
    if shapes is None:
        return {}
    if not isinstance(shapes, Mapping):
        raise refused(
            "shapes", f"must be a dict of shapes by input, got {shown(shapes)}", TypeError
        )
    if unknown := set(shapes) - set(inputs):
        raise refused("shapes", f"must be of {sorted(inputs)}, got {sorted(unknown)}")
    return {
        name: integers("shapes", listed("shapes", shape, "sizes"), len(shape), 1)
        for name, shape in shapes.items()
    }


def _drawn(
    blobs: Mapping[str, list[Blob]], key: Any, file: str, known: Mapping[str, list] | None = None
) -> Params:
    """What the fillers make, and what is known of some layers."""
    params: Params = {}
    count = 0
    for name, layer in blobs.items():
        params[name] = [jax.device_put(value) for value in (known or {}).get(name, ())]
        for blob in layer[len(params[name]) :]:
            try:
                made = blob.filler(jax.random.fold_in(key, count + blob.index), blob.shape)
            except ValueError as error:
                reason = (
                    f"{file}: layer {name!r}, filler of blob {blob.index}: {vars(error)['reason']}"
                )
                raise refused("prototxt", reason) from None
            params[name].append(made)
        count += sum(blob.count for blob in layer[:1])
    return params


def _learned(
    params: Mapping[str, Any], step: Step, made: Layer, places: Sequence[tuple[str, int]]
) -> list[jax.Array]:
    """The layer's blobs in the params, of the shapes that it needs."""
    blobs = []
    for (name, index), shape in zip(places, made.blobs, strict=True):
        kept = params.get(name)
        if not isinstance(kept, list | tuple) or len(kept) <= index:
            reason = f"must have a list of blobs for layer {name!r}, as net.params has, got {shown(kept)}"
            raise refused("params", reason, TypeError if kept is not None else ValueError)
        found = array("params", kept[index])
        if found.shape != shape:
            reason = f"need shape {shape} for blob {index} of layer {name!r}, got {found.shape}"
            if step.name != name:
                reason += f" (which {step.name!r} shares)"
            raise refused("params", f"{reason}; other sizes of the inputs may be the cause")
        blobs.append(found)
    return blobs


def _readable(shape: Known) -> str:
    if shape is None:
        return "of unknown shape"
    return "x".join("?" if size is None else str(size) for size in shape)
