"""README's chart: a training step of each network in the committed run, `python -m benchmarks.chart`.

Reads benchmarks/results/networks.json and draws benchmarks/results/steps.svg. Each library has the faster of
its two layouts, and each bar is as long as its share of the slowest library's time.
"""

from __future__ import annotations

from pathlib import Path
from statistics import median

from benchmarks import ratios, report
from benchmarks.peers import LAX, OURS

RESULTS = Path(__file__).parent / "results"
COLORS = {OURS: "#0a7d91", "torch": "#b58a3c", LAX: "#9aa5b1"}


def milliseconds(run: report.Run) -> dict[str, dict[str, float]]:
    """For each network and library the time of a training step, in its faster layout."""
    times: dict[str, dict[str, float]] = {}
    for row in run.rows:
        if row.family == "network":
            of_network = times.setdefault(row.name, {})
            for library in COLORS.keys() & row.seconds.keys():
                taken = 1e3 * median(row.seconds[library])
                of_network[library] = min(taken, of_network.get(library, taken))
    return times


def label(library: str, taken: float) -> str:
    """The words beside a bar."""
    return f"{library} {taken:.0f} ms"


def draw(times: dict[str, dict[str, float]], path: Path) -> None:
    """Draw the bars as SVG, in which text stays text."""
    import matplotlib
    from matplotlib.figure import Figure

    with matplotlib.rc_context(
        {"svg.hashsalt": "jdeconv", "svg.fonttype": "none", "font.size": 11}
    ):
        figure = Figure(figsize=(9, 0.6 * len(times)), layout="constrained")
        axes = figure.subplots()
        for place, of_network in enumerate(times.values()):
            for i, (library, color) in enumerate(COLORS.items()):
                if library in of_network:
                    share = of_network[library] / max(of_network.values())
                    axes.barh(place + 0.28 * (i - 1), share, 0.25, color=color)
                    words = label(library, of_network[library])
                    axes.text(
                        share + 0.01, place + 0.28 * (i - 1), words, va="center", fontsize=9.5
                    )
        axes.set_yticks(range(len(times)), list(times))
        axes.tick_params(left=False)
        axes.invert_yaxis()
        axes.set_xlim(0, 1.2)
        axes.xaxis.set_visible(False)
        axes.spines[:].set_visible(False)
        axes.set_title(
            "a training step on two CPU cores: shorter is faster", loc="left", fontsize=11
        )
        figure.savefig(path, metadata={"Date": None})


if __name__ == "__main__":
    run = report.Run.load(RESULTS / "networks.json", ratios.Row)
    draw(milliseconds(run), RESULTS / "steps.svg")
