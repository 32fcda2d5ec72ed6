"""Pictures of results."""

from __future__ import annotations

from pathlib import Path

from files import whole_file


def plot_recall(path: str, curves: dict[str, list[float]], cases: int) -> None:
    """Draw Recall@K in percent (curve[K - 1]) against K, a line for each result file."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(7, 4.5), layout="constrained")
    for label, curve in curves.items():
        axes.plot(range(1, len(curve) + 1), curve, label=label, linewidth=2, marker="o" if len(curve) == 1 else None)
    axes.set(xlabel="K", ylabel="Recall@K (%)", title=f"Recall@K over {cases} evaluation pairs", xlim=(0, None))
    axes.grid(alpha=0.3)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False)
    with whole_file(path) as file:
        figure.savefig(file, format=Path(path).suffix[1:], dpi=150)
    pyplot.close(figure)
