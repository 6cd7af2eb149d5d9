"""The list of planted faults: each one still has its place in the code."""

import pytest
from faults import FAULTS, ROOT


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.name)
def test_a_fault_has_one_place(fault):
    """Whoever changes that place moves the fault along."""
    assert (ROOT / fault.file).read_text().count(fault.old) == 1
    assert fault.old != fault.new
    for name in fault.likely.split():
        assert (ROOT / "tests" / f"test_{name}.py").is_file()


def test_the_names_differ():
    assert len({fault.name for fault in FAULTS}) == len(FAULTS) >= 40
