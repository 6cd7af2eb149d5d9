"""What devices send one another, read from compiled programs."""

import re

KINDS = "all-gather|all-reduce|all-to-all|collective-permute|reduce-scatter"


def collectives(compiled):
    """(operation, shape) of each."""
    found = re.findall(rf"= \(?\w+\[([\d,]*)\][^=]*? ({KINDS})(?:-start)?\(", compiled.as_text())
    return [(kind, tuple(int(n) for n in shape.split(",") if n)) for shape, kind in found]
