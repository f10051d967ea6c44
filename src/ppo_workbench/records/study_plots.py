"""A study's plots as PNG files for its MLflow run; Optuna draws them.

`analysis.html` says more, but MLflow's page shows pictures beside the run.
"""

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import optuna

PLOTS = ("history", "parallel", "slice", "contour", "importances", "pareto")
CONTOUR_PARAMETERS = 4  # more make panels that nobody can read


def write_study_plots(study: "optuna.Study", folder: Path) -> list[Path]:
    """Write history, parallel coordinates, slice, contour and importances, or the front.

    Args:
        study: Finished or not.
        folder: Receives `history.png` and so on.

    Returns:
        What was written; what a study is too small for is left out.
    """
    import matplotlib as mpl
    from matplotlib.figure import Figure

    folder.mkdir(parents=True, exist_ok=True)
    written = []
    with mpl.rc_context({"figure.figsize": (9, 6), "figure.dpi": 110}), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that Optuna's functions are young is no news
        for name, draw in _drawers(study).items():
            try:
                axes = draw()
            except (ValueError, RuntimeError):  # too few trials, or one value of everything
                continue
            figure = axes if isinstance(axes, Figure) else _figure_of(axes)
            written.append(folder / f"{name}.png")
            figure.savefig(written[-1], bbox_inches="tight")
            _close(figure)
    return written


def _drawers(study: "optuna.Study") -> dict[str, Callable[[], Any]]:
    import matplotlib as mpl

    mpl.use("Agg", force=False)
    from optuna.visualization import matplotlib as draw

    options: dict[str, Any] = {}
    if len(study.directions) > 1:
        options = {"target": lambda trial: trial.values[0], "target_name": "first objective"}
    names = sorted({name for trial in study.get_trials(deepcopy=False) for name in trial.params})
    found: dict[str, Callable[[], Any]] = {
        "history": lambda: draw.plot_optimization_history(study, **options),
        "parallel": lambda: draw.plot_parallel_coordinate(study, **options),
        "slice": lambda: draw.plot_slice(study, **options),
        "importances": lambda: draw.plot_param_importances(study, **options),
    }
    if len(names) > 1:
        shown = _leading(study, names, options)
        found["contour"] = lambda: draw.plot_contour(study, params=shown, **options)
    if len(study.directions) > 1:
        found["pareto"] = lambda: draw.plot_pareto_front(study)
    return found


def _leading(study: "optuna.Study", names: list[str], options: dict[str, Any]) -> list[str]:
    """Return the parameters that matter most, as far as that can be told."""
    import optuna

    if len(names) <= CONTOUR_PARAMETERS:
        return names
    try:
        target = options.get("target")
        ranked = list(optuna.importance.get_param_importances(study, target=target))
    except (ValueError, RuntimeError):
        ranked = names
    return ranked[:CONTOUR_PARAMETERS]


def _figure_of(axes: Any) -> Any:
    while not hasattr(axes, "figure"):  # several panels come as an array
        axes = axes[0]
    return axes.figure


def _close(figure: Any) -> None:
    from matplotlib import pyplot

    pyplot.close(figure)
