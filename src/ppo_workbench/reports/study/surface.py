"""A smooth surface through noisy trials: what is left of a value once luck is taken out.

Gaussian process regression (Rasmussen and Williams 2006, algorithm 2.1) with a Matern 5/2
kernel, one length scale a parameter, and each trial's own noise variance.  Length scales
have the prior of Hvarfner et al. 2024 (arXiv 2402.02229), so that twenty parameters and
forty trials do not overfit.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ppo_workbench.config.arrays import Floats, Ints
from ppo_workbench.reports.study.trials import Parameter

MAX_FITTED = 400
_ROOT5 = math.sqrt(5.0)
_NUGGET_MEAN, _NUGGET_SD = math.log(1e-3), 2.0


class Surface:
    """The expected value over the parameter space, fitted to finished trials."""

    def __init__(
        self,
        parameters: Sequence[Parameter],
        settings: Sequence[Mapping[str, Any]],
        values: Floats,
        errors: Floats,
    ) -> None:
        """Fit the surface.

        Args:
            parameters: What spans the space.
            settings: One mapping of parameter names to values a trial; names may be missing.
            values: float64 (n,), the trials' values.
            errors: float64 (n,), their standard errors in the same unit, at least 0.
        """
        self._parameters = parameters
        self._centre = float(values.mean())
        spread = float(values.std())
        self._scale = spread if spread > 0 else 1.0
        keep = _thinned(values)
        self._x = self._encode([settings[i] for i in keep])
        self._y = (values[keep] - self._centre) / self._scale
        self._noise = (errors[keep] / self._scale) ** 2
        self._theta = self._fit()
        self._factor()

    def predict(self, settings: Sequence[Mapping[str, Any]]) -> tuple[Floats, Floats]:
        """Return the surface's mean and its standard deviation, each float64 (m,)."""
        x = self._encode(settings)
        cross, whitened = self._cross(x)
        variance = math.exp(self._theta[-2]) - np.einsum("nm,nm->m", whitened, whitened)
        mean = self._centre + self._scale * (cross.T @ self._alpha)
        return mean, self._scale * np.sqrt(np.maximum(variance, 0.0))

    def difference_sd(
        self, settings: Sequence[Mapping[str, Any]], reference: Mapping[str, Any]
    ) -> Floats:
        """Return the standard deviation of surface(reference) - surface(setting), (m,)."""
        x = self._encode([reference, *settings])
        _, whitened = self._cross(x)
        apart = whitened[:, 1:] - whitened[:, :1]
        prior = 2.0 * (math.exp(self._theta[-2]) - self._kernel(x[:, :1], x[:, 1:])[0])
        variance = prior - np.einsum("nm,nm->m", apart, apart)
        return np.asarray(self._scale * np.sqrt(np.maximum(variance, 0.0)))

    def _encode(self, settings: Sequence[Mapping[str, Any]]) -> Floats:
        """Return coordinates, float64 (parameters, n, width).

        A missing number lies off the axis and equally far from both ends; options lie at
        distance 1 of each other, a missing one is an option of its own.
        """
        width = max([2, *(len(p.choices) + 1 for p in self._parameters)])
        x = np.zeros((len(self._parameters), len(settings), width))
        for i, parameter in enumerate(self._parameters):
            for j, setting in enumerate(settings):
                if parameter.choices:
                    known = parameter.name in setting
                    at = parameter.choices.index(str(setting[parameter.name])) if known else -1
                    x[i, j, at] = math.sqrt(0.5)
                elif parameter.name in setting:
                    x[i, j, 0] = parameter.position(setting[parameter.name])
                else:
                    x[i, j, :2] = 0.5, math.sqrt(0.75)
        return x

    def _fit(self) -> Floats:
        """Return log length scales, log signal and log nugget variance of highest posterior."""
        from scipy.optimize import minimize

        count = len(self._parameters)
        squares = np.stack([_squares(x, x) for x in self._x])
        bounds = [(math.log(0.02), math.log(200.0))] * count + [(-7.0, 4.0), (-14.0, 2.0)]
        best: Any = None
        for scale in (0.3, 2.0):
            start = np.array([math.log(scale * math.sqrt(count))] * count + [0.0, _NUGGET_MEAN])
            found = minimize(
                self._loss, start, args=(squares,), jac=True, method="L-BFGS-B", bounds=bounds
            )
            best = found if best is None or found.fun < best.fun else best
        return np.asarray(best.x, dtype=np.float64)

    def _loss(self, theta: Floats, squares: Floats) -> tuple[float, Floats]:
        """Return the negative log posterior of the hyperparameters and its gradient."""
        count = len(self._parameters)
        weights = np.exp(-2.0 * theta[:count])
        distance = _ROOT5 * np.sqrt(np.tensordot(weights, squares, 1))
        decay = math.exp(theta[-2]) * np.exp(-distance)
        signal = decay * (1.0 + distance + distance**2 / 3.0)
        nugget = math.exp(theta[-1])
        covariance = signal + np.diag(self._noise + nugget + 1e-9)
        try:
            lower = np.linalg.cholesky(covariance)
        except np.linalg.LinAlgError:
            return 1e12, np.zeros_like(theta)
        inverse = np.linalg.inv(covariance)
        alpha = inverse @ self._y
        loss = 0.5 * float(self._y @ alpha) + float(np.log(np.diag(lower)).sum())
        outer = np.outer(alpha, alpha) - inverse
        slope = outer * decay * (1.0 + distance) * (5.0 / 3.0)
        gradient = np.empty_like(theta)
        gradient[:count] = -0.5 * weights * np.tensordot(squares, slope, 2)
        gradient[-2] = -0.5 * float((outer * signal).sum())
        gradient[-1] = -0.5 * nugget * float(np.trace(outer))
        means, sds = _prior(count)
        return loss + 0.5 * float((((theta - means) / sds) ** 2).sum()), gradient + (
            theta - means
        ) / sds**2

    def _factor(self) -> None:
        covariance = self._kernel(self._x, self._x)
        covariance += np.diag(self._noise + math.exp(self._theta[-1]) + 1e-9)
        self._lower = np.linalg.cholesky(covariance)
        self._alpha = np.linalg.solve(self._lower.T, np.linalg.solve(self._lower, self._y))

    def _cross(self, x: Floats) -> tuple[Floats, Floats]:
        cross = self._kernel(self._x, x)
        return cross, np.linalg.solve(self._lower, cross)

    def _kernel(self, a: Floats, b: Floats) -> Floats:
        weights = np.exp(-2.0 * self._theta[: len(self._parameters)])
        total = sum(w * _squares(p, q) for w, p, q in zip(weights, a, b, strict=True))
        distance = _ROOT5 * np.sqrt(total)
        shape = (1.0 + distance + distance**2 / 3.0) * np.exp(-distance)
        return np.asarray(math.exp(self._theta[-2]) * shape)


def _squares(a: Floats, b: Floats) -> Floats:
    return np.asarray(((a[:, None, :] - b[None, :, :]) ** 2).sum(axis=2))


def _prior(count: int) -> tuple[Floats, Floats]:
    """Return means and standard deviations of the log-normal priors."""
    length = math.sqrt(2.0) + 0.5 * math.log(count)
    means = np.array([length] * count + [0.0, _NUGGET_MEAN])
    return means, np.array([math.sqrt(3.0)] * count + [1.0, _NUGGET_SD])


def _thinned(values: Floats) -> Ints:
    """Return at most `MAX_FITTED` trials evenly over the ranks, the cost being cubic."""
    order = np.argsort(values, kind="stable")
    picks = np.linspace(0, len(values) - 1, min(len(values), MAX_FITTED)).round().astype(np.int64)
    return np.sort(order[picks])
