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


def plot_training(path: str | Path, log: list[dict], evaluations: list[dict]) -> None:
    """Draw loss and learning rate against the step, and Recall@10 and Recall@50 where there were evaluations."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    rows = 2 if evaluations else 1
    figure, panels = pyplot.subplots(rows, 1, sharex=True, squeeze=False, layout="constrained",
                                     figsize=(7, 3 * rows + 1))
    top, *below = panels[:, 0]
    steps = [record["step"] for record in log]
    top.plot(steps, [record["loss"] for record in log], linewidth=1.5, color="tab:blue")
    top.set(ylabel="loss", title="Training")
    rate = top.twinx()
    rate.plot(steps, [record["learning_rate"] for record in log], linewidth=1, color="tab:gray", linestyle="--")
    rate.set(ylabel="learning rate (dashed)", ylim=(0, None))
    for axes in below:
        for name in ("R@10", "R@50"):
            axes.plot([e["step"] for e in evaluations], [e[name] for e in evaluations], marker="o", label=name)
            axes.fill_between([e["step"] for e in evaluations], *zip(*(e["intervals"][name] for e in evaluations)),
                              alpha=0.15)
        axes.set(ylabel="recall (%), 95 % interval")
        axes.legend(frameon=False)
    for axes in (top, *below):
        axes.grid(alpha=0.3)
        axes.spines[["top"]].set_visible(False)
    (below or [top])[-1].set_xlabel("step")
    with whole_file(path) as file:
        figure.savefig(file, format=Path(path).suffix[1:], dpi=150)
    pyplot.close(figure)
