"""The count of lines of code."""

import re

import pytest

from benchmarks import lines

SOURCE = '''\
"""A docstring
of two lines."""

# A comment.
x = """text
of two lines"""


def f(a,  # another comment

      b):
    """A docstring."""
    return a
'''


def test_docstrings_comments_and_blank_lines_are_no_code():
    assert lines.code_lines(SOURCE) == 5


@pytest.mark.parametrize(
    ("path", "group"),
    [
        ("jdeconv/form.py", "core"),
        ("jdeconv/compat/caffe/net.py", "compat"),
        ("jdeconv/cli/demo.py", "cli"),
        ("examples/unet3d.py", "docs"),
    ],
)
def test_a_file_is_counted_in_the_group_of_its_folder(path, group):
    assert lines.group(path) == group


def test_the_table_has_a_row_for_each_group_or_file_and_a_column_for_each_revision():
    columns = {
        "v1": {"tests/a.py": 3, "tests/b.py": 1_200},
        "HEAD": {"tests/a.py": 4, "docs/c.py": 2},
    }
    groups = lines.table(columns, by_file=False).splitlines()
    assert groups[0].split() == ["v1", "HEAD"]
    assert groups[-3:] == [
        f"{'tests':<10}{'1,203':>12}{'4':>12}",
        f"{'docs':<10}{'0':>12}{'2':>12}",
        groups[-1],
    ]
    assert groups[-1].split() == ["total", "1,203", "6"]
    files = lines.table(columns, by_file=True)
    assert re.findall(r"^\S+", files, re.M) == ["docs/c.py", "tests/a.py", "tests/b.py", "total"]


def test_a_revision_that_does_not_exist_is_refused(ends_with_2):
    ends_with_2(lines.main, ["no-such-revision"], "error: ")
