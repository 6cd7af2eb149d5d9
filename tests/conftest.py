"""Settings for every test: which are left out, how XLA compiles, what JAX is strict about."""

import gc
import os
import shutil
import subprocess
import sys
from pathlib import Path

import browser
import jax
import jaxlib
import numpy as np
import pytest

FINISHED, LEFT_OUT = pytest.StashKey[int](), pytest.StashKey[int]()
SLOW_MINUTES = 8


def pytest_addoption(parser):
    """Add the options that say more of the tests and of XLA's optimizations."""
    group = parser.getgroup("jdeconv")
    group.addoption("--slow", action="store_true", help="run the slow tests too")
    group.addoption(
        "--optimized",
        action="store_true",
        help="compile as users do, with all of XLA's optimizations; takes twice the time",
    )


def pytest_configure(config):
    """Set JAX up, before it has a backend."""
    jax.config.update("jax_numpy_rank_promotion", "raise")
    jax.config.update("jax_num_cpu_devices", 8)
    jax.config.update("jax_traceback_in_locations_limit", 0)  # lowering is quicker without them
    config.stash[FINISHED] = config.stash[LEFT_OUT] = 0
    if not config.getoption("--optimized"):
        jax.config.update("jax_disable_most_optimizations", True)
        # Processes that tests start compile in the same way.
        os.environ["JAX_DISABLE_MOST_OPTIMIZATIONS"] = "1"
        # XLA's older emitters of fusions compile in two thirds of the time. Later versions have none.
        if jaxlib.__version__.startswith("0.10."):
            os.environ.setdefault("XLA_FLAGS", "--xla_cpu_use_fusion_emitters=false")


@pytest.hookimpl(trylast=True)  # after -k, so that only what it kept is counted
def pytest_collection_modifyitems(config, items):
    """Leave the slow tests out, unless an option asks for them or an argument names a test."""
    is_named = any("::" in argument for argument in config.args)
    if config.getoption("--slow") or config.getoption("markexpr") or is_named:
        return
    slow = [item for item in items if item.get_closest_marker("slow")]
    items[:] = [item for item in items if not item.get_closest_marker("slow")]
    config.hook.pytest_deselected(items=slow)
    config.stash[LEFT_OUT] = len(slow)


def pytest_collection_finish():
    """Take what stays until the end, half a million objects, out of the garbage collector's way."""
    gc.collect()
    gc.freeze()


def pytest_sessionfinish(session):
    """Tell the process that reports how many tests this one left out."""
    if hasattr(session.config, "workeroutput"):
        session.config.workeroutput["left out"] = session.config.stash[LEFT_OUT]


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node):
    """Take over what a process of pytest-xdist told."""
    told = getattr(node, "workeroutput", {}).get("left out", 0)  # none by a process that crashed
    node.config.stash[LEFT_OUT] = max(told, node.config.stash[LEFT_OUT])


def pytest_terminal_summary(terminalreporter, config):
    """Say what was left out, and how to run it."""
    if count := config.stash[LEFT_OUT]:
        how = "Add --slow to run them too."
        if config.args_source != pytest.Config.ArgsSource.ARGS and not config.getoption("keyword"):
            python = os.path.relpath(sys.executable)
            how = f"All tests take {SLOW_MINUTES} minutes on two cores: {python} -m pytest --slow"
        terminalreporter.write_line(f"{count} slow tests were left out. {how}")


@pytest.fixture(autouse=True)
def memory(request):
    """Let go of what the last few tests compiled. It costs no time: few tests share a function."""
    yield
    request.config.stash[FINISHED] += 1
    if request.config.stash[FINISHED] % 8 == 0:
        jax.clear_caches()


@pytest.fixture
def rng():
    """A generator of random numbers that are the same in every run."""
    return np.random.default_rng(20261122)


@pytest.fixture
def ends_with_2(capsys):
    """A check that a command with these arguments ends with 2 and says this."""

    def check(main, arguments, text):
        with pytest.raises(SystemExit) as stop:
            main(arguments)
        assert stop.value.code == 2
        assert text in capsys.readouterr().err

    return check


# ---- the site, and a browser that looks at it


@pytest.fixture(scope="session")
def site(tmp_path_factory):
    """The site that JDECONV_SITE names, or one built here without running its notebooks."""
    if "JDECONV_SITE" in os.environ:
        return Path(os.environ["JDECONV_SITE"])
    pytest.importorskip("myst_nb")
    folder = tmp_path_factory.mktemp("site")
    docs = Path(__file__).parents[1] / "docs"
    command = [sys.executable, "-m", "sphinx", "-q", "-b", "html", "-D", "nb_execution_mode=off"]
    built = subprocess.run([*command, str(docs), str(folder)], capture_output=True, text=True)
    assert built.returncode == 0, built.stderr
    return folder


@pytest.fixture(scope="module")
def chromium():
    """A browser."""
    playwright = pytest.importorskip("playwright.sync_api")
    if shutil.which("chromium") is None:
        pytest.skip("chromium is not installed")
    with playwright.sync_playwright() as started, browser.chromium(started) as found:
        yield found


@pytest.fixture
def expect(chromium):
    """Playwright's assertions, which wait."""
    return pytest.importorskip("playwright.sync_api").expect


@pytest.fixture(scope="module")
def address(site):
    """Where the site is served."""
    with browser.served(site) as found:
        yield found
