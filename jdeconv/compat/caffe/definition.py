"""A prototxt's text, read into one message for each layer of a phase, with the line where it stands."""

from __future__ import annotations

import bisect
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from jdeconv.checks import refused
from jdeconv.compat.caffe.files import MAX_LAYERS, need_protobuf, read_bytes
from jdeconv.compat.caffe.schema import V1_TYPES, message_class

# Comments and strings may hold braces, and numbers that are no sizes.
BLANK = r"""\#[^\n]*|"(?:[^"\\\n]|\\.)*"|'(?:[^'\\\n]|\\.)*'"""
TOKEN = re.compile(BLANK + r"|[{}<>]|\w+")
SOURCES = re.compile(r"([a-z_]+)\s*:\s*(\d+)")
UNKNOWN = re.compile(r'has no field named "(\w+)"')
IS_TEXT = re.compile(r"[{\n]|^\s*\w+\s*:\s")  # a brace, a second line, or a field with its value
LAYER_FIELDS = ("layer", "layers")  # today's, and V1's
MAX_SHOWN = 20  # problems of one file in an error's text


class LayerMessage:
    """A layer's message, of today's kind or V1, under today's names.

    Attributes:
      line: of the text, where the layer begins.
      text: the layer's own text, without comments and strings.
      state: the net's NetState.
      problem: the first field that is not known, and where; empty for none.
    """

    def __init__(self, message: Any, line: int, text: str, state: Any, problem: str) -> None:
        self._message, self.line, self.state = message, line, state
        self.text = re.sub(BLANK, "", text)
        self.problem = problem
        self.is_v1 = message.DESCRIPTOR.name.startswith("V1")
        self.type = _v1_name(message) if self.is_v1 else message.type

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):
            raise AttributeError(name)
        if name not in self._message.DESCRIPTOR.fields_by_name and name.endswith("_param"):
            return getattr(message_class("LayerParameter")(), name)  # V1 lacks it: its defaults
        return getattr(self._message, name)

    def set_offset(self, offset: Sequence[int]) -> None:
        """Give a Crop layer the offset that its file leaves out."""
        self._message.crop_param.offset[:] = offset

    @property
    def where(self) -> str:
        """How errors call it."""
        return f"line {self.line}, layer {self.name!r} ({self.type})"

    def shared(self, index: int) -> str:
        """The name under which layers share this blob; empty for none."""
        params = self._message.param
        if index >= len(params):
            return ""
        return params[index] if self.is_v1 else params[index].name

    def multipliers(self, index: int) -> tuple[float, float]:
        """Of this blob, lr_mult and decay_mult."""
        message = self._message
        if self.is_v1:
            rates, decays = message.blobs_lr, message.weight_decay
        else:
            rates = [param.lr_mult for param in message.param]
            decays = [param.decay_mult for param in message.param]
        rate, decay = (values[index] if index < len(values) else 1.0 for values in (rates, decays))
        return rate, decay

    @property
    def propagate_down(self) -> list[bool]:
        """For each bottom whether gradients reach it."""
        given = [] if self.is_v1 else list(self._message.propagate_down)
        return given or [True] * len(self._message.bottom)

    @property
    def numbers(self) -> dict[str, int]:
        """Every field of the text that holds one whole number, whatever message it belongs to."""
        return {name: int(value) for name, value in SOURCES.findall(self.text)}

    @property
    def train(self) -> bool:
        """Whether it computes as in phase TRAIN: its own field goes before the net's phase."""
        has_own = not self.is_v1 and self._message.HasField("phase")
        return (self._message if has_own else self.state).phase == 0

    @property
    def is_included(self) -> bool:
        """Whether it is part of a net in this state."""
        message = self._message
        if message.include:
            return any(_holds(rule, self.state) for rule in message.include)
        return not any(_holds(rule, self.state) for rule in message.exclude)


@dataclass(frozen=True)
class Definition:
    """What a prototxt says.

    Args:
      file: how errors call it.
      head: the message of all that is no layer.
      layers: those of the phase.
      sources: the tops of data layers of another phase or stage, with the layer.
    """

    file: str
    head: Any = field(repr=False)
    layers: list[LayerMessage] = field(repr=False)
    sources: dict[str, LayerMessage] = field(repr=False)


def read_text(prototxt: str | os.PathLike, what: str = "net") -> tuple[str, str]:
    """The text, and how errors call it: by its path, or as what it is."""
    need_protobuf()
    if isinstance(prototxt, str) and IS_TEXT.search(prototxt):
        return prototxt, "the text"
    try:
        return read_bytes("prototxt", prototxt).decode(), repr(str(prototxt))
    except UnicodeDecodeError as error:
        reason = f"{str(prototxt)!r} is no {what}'s definition: {error}"
        raise refused("prototxt", reason) from None


def read(text: str, file: str, train: bool) -> Definition:
    """The definition in a text."""
    found, rest, problem = blocks(text, LAYER_FIELDS)
    problems = [problem] if problem else []
    head, problem = parsed("NetParameter", rest)
    if problem:
        problems.append(problem)
    state = message_class("NetState")() if head is None else head.state
    state.phase = 0 if train else 1
    layers: list[LayerMessage] = []
    sources: dict[str, LayerMessage] = {}
    for kind, line, column, block in found:
        name = "LayerParameter" if kind == "layer" else "V1LayerParameter"
        message, problem = parsed(name, block, line, column)
        if problem:  # which does not matter in a layer that is left out, or that the caller brings
            message, error = parsed(name, block, line, column, True)
            if error:
                problems.append(error)
                continue
        layer = LayerMessage(message, line, block, state, problem)
        if layer.include and layer.exclude:
            problems.append(f"{layer.where}: has include and exclude rules; leave one kind out")
        if layer.is_included:
            layers.append(layer)
        elif not layer.bottom:
            sources.update(dict.fromkeys(layer.top, layer))
    if problems:
        raise refused("prototxt", f"{file} is no net's definition: {listing(problems)}")
    if len(layers) > MAX_LAYERS:
        raise refused("prototxt", f"{file}: {len(layers)} layers, {MAX_LAYERS} are the most")
    return Definition(file, head, layers, sources)


def listing(problems: Sequence[str]) -> str:
    """The text of one problem, or of several, a line for each."""
    if len(problems) == 1:
        return problems[0]
    more = len(problems) - MAX_SHOWN
    lines = [*problems[:MAX_SHOWN], *([f"and {more} more"] if more > 0 else [])]
    return f"{len(problems)} problems" + "".join(f"\n  {line}" for line in lines)


def parsed(
    name: str, text: str, line: int = 1, column: int = 1, allow_unknown: bool = False
) -> tuple[Any, str]:
    """The message in a text that begins at a line and a column, and the problem, if any."""
    from google.protobuf import text_format

    try:
        return text_format.Parse(text, message_class(name)(), allow_unknown_field=allow_unknown), ""
    except text_format.ParseError as error:
        if unknown := UNKNOWN.search(str(error)):  # without contents it changes nothing
            empty = re.compile(rf"\b{unknown.group(1)}\s*:?\s*\{{\s*\}}")
            shorter = empty.sub(lambda match: re.sub(r"[^\n]", " ", match.group()), text)
            if shorter != text:
                return parsed(name, shorter, line, column, allow_unknown)
        reason = str(error).split(" : ", 1)[-1].replace('"jdeconv.caffe.', '"')
        at, across = error.GetLine() or 0, error.GetColumn() or 0
        if not at:  # protobuf does not say where the value of an unknown field is wrong
            before = _before(re.escape(reason.rpartition(": ")[2]), text, parsed(name, text)[1])
            at, across = before.count("\n") + 1, len(before) - before.rfind("\n")
        return None, f"{at + line - 1}:{across + (column - 1 if at == 1 else 0)} : {reason}"


def _before(value: str, text: str, problem: str) -> str:
    """The text before a value, which stands behind the place of a problem and in no comment or string."""
    row, column = map(int, problem.partition(" : ")[0].split(":"))
    start = sum(map(len, text.splitlines(keepends=True)[: row - 1])) + column - 1
    plain = re.sub(BLANK, lambda match: " " * len(match.group()), text)
    found = re.compile(rf"{value}(?=[\s}}]|$)").search(plain, start)
    return text[: found.start()] if found else text


def blocks(text: str, fields: Sequence[str]) -> tuple[list[tuple[str, int, int, str]], str, str]:
    """The contents of these messages, the rest, and a brace that has no partner.

    Contents come with field, line and column.
    """
    ends = [match.end() for match in re.finditer("\n", text)]

    def place(index: int) -> tuple[int, int]:
        line = bisect.bisect_right(ends, index)
        return line + 1, index - (ends[line - 1] if line else 0) + 1

    found, rest = [], []
    opened, word, begin, last = [], "", 0, 0
    for match in TOKEN.finditer(text):
        token = match.group()
        if token in ("{", "<"):
            opened.append(match.start())
            if len(opened) == 1 and word in fields:
                begin = match.end()
        elif token in ("}", ">"):
            if not opened:
                at, across = place(match.start())
                return [], "", f"{at}:{across} : no brace opens what this one closes"
            opened.pop()
            if not opened and word in fields:
                block = text[begin : match.start()]
                found.append((word, *place(begin), block))
                rest += [text[last:begin], re.sub(r"[^\n]", " ", block)]
                last = match.start()
        elif not opened and re.match(r"\w", token):
            word = token
    if opened:
        at, across = place(opened[-1])
        return [], "", f"{at}:{across} : this brace is left open"
    return found, "".join([*rest, text[last:]]), ""


def _holds(rule: Any, state: Any) -> bool:
    """Whether a NetStateRule is one of this NetState."""
    return (
        (not rule.HasField("phase") or rule.phase == state.phase)
        and (not rule.HasField("min_level") or rule.min_level <= state.level)
        and (not rule.HasField("max_level") or rule.max_level >= state.level)
        and set(rule.stage) <= set(state.stage)
        and not set(rule.not_stage) & set(state.stage)
    )


def _v1_name(message: Any) -> str:
    kinds = message.DESCRIPTOR.fields_by_name["type"].enum_type.values_by_number
    return V1_TYPES[kinds[message.type].name][1]
