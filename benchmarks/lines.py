"""Count the lines of code in the committed Python files, without docstrings, comments and blank lines.

If you name a revision, the table shows its counts beside those of HEAD. The command reads both from git and
checks out no commit.
"""

from __future__ import annotations

import argparse
import ast
import io
import subprocess
import sys
import tokenize
from collections import Counter
from pathlib import Path

ROOT = Path(__file__).parents[1]
GROUPS = {
    "core": "jdeconv/",
    "cli": "jdeconv/cli/",
    "compat": "jdeconv/compat/",
    "layers": "jdeconv/layers/",
    "benchmarks": "benchmarks/",
    "tests": "tests/",
    "docs": ("docs/", "examples/"),  # where the examples were before
}
NO_CODE = {
    tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT, tokenize.ENDMARKER,
}  # fmt: skip


def code_lines(source: str) -> int:
    """The number of lines that hold code."""
    code: set[int] = set()
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type not in NO_CODE:
            code.update(range(token.start[0], token.end[0] + 1))
    for node in ast.walk(ast.parse(source)):
        match node:
            case ast.Expr(value=ast.Constant(value=str())):
                code.difference_update(range(node.lineno, (node.end_lineno or 0) + 1))
    return len(code)


def group(path: str) -> str:
    """The last group that a file fits in."""
    return [name for name, folders in GROUPS.items() if path.startswith(folders)][-1]


def counts(revision: str) -> dict[str, int]:
    """The lines of every Python file of a revision, by path."""
    paths = _git("ls-tree", "-r", "-z", "--name-only", "--full-tree", revision).split("\0")
    names = [path for path in paths if path.endswith(".py")]
    return {path: code_lines(_git("show", f"{revision}:{path}")) for path in names}


def table(columns: dict[str, dict[str, int]], by_file: bool) -> str:
    """A row for each group, or each file, and a column for each revision."""
    rows = sorted({path for found in columns.values() for path in found}) if by_file else [*GROUPS]
    totals = []
    for found in columns.values():
        totals.append(Counter(total=sum(found.values())))
        for path, lines in found.items():
            totals[-1][path if by_file else group(path)] += lines
    width = max(map(len, rows))
    lines = [" " * width + "".join(f"{name:>12}" for name in columns)]
    for row in (*rows, "total"):
        lines.append(f"{row:<{width}}" + "".join(f"{total[row]:>12,}" for total in totals))
    return "\n".join(lines)


def main(arguments: list[str] | None = None) -> int:
    """Print the table; 2 for a revision that git does not know."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.lines", description=__doc__)
    parser.add_argument(
        "revision",
        nargs="?",
        metavar="REVISION",
        help="compare with this commit, such as main",
    )
    parser.add_argument("--files", action="store_true", help="print a row for each file")
    options = parser.parse_args(arguments)
    revisions = [options.revision, "HEAD"] if options.revision else ["HEAD"]
    try:
        found = {revision: counts(revision) for revision in revisions}
    except subprocess.CalledProcessError as error:
        parser.error(error.stderr.strip())
    print(table(found, options.files))
    return 0


def _git(*arguments: str) -> str:
    run = subprocess.run(
        ["git", "-C", str(ROOT), *arguments], capture_output=True, encoding="utf-8", check=True
    )
    return run.stdout


if __name__ == "__main__":
    sys.exit(main())
