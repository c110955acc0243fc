"""A Gaussian process of few points: Matern 5/2, a length an input, noise. Numpy and scipy only.

Everything is a closed form of the points and of their order: the same points give the same process
on the same machine.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

_MOST_FITTED = 128
"""Points that hyperparameters are fitted to; a step of the fit takes their third power of time."""
_MOST_STEPS = 30
_JITTER = 1e-6

# Priors of the logarithms of lengths, signal and noise (standard deviations), of inputs and values
# of standard deviation one: weak, but enough for three points.
_LENGTH, _SIGNAL, _NOISE = (0.5, 1.0), (0.0, 1.0), (-2.0, 1.0)
_BOUNDS = {"length": (-3.0, 4.0), "signal": (-3.0, 3.0), "noise": (-5.0, 1.0)}


@dataclass(frozen=True)
class Hyperparameters:
    """What a process knows before its points, as logarithms.

    Attributes:
        lengths_D: of each input, in the units of the inputs.
        signal: standard deviation of the function, in those of the standardized values.
        noise: standard deviation of a value around the function, likewise.
    """

    lengths_D: Floats
    signal: float
    noise: float

    def flat(self) -> Floats:
        """As one array (D + 2,)."""
        return np.array([*self.lengths_D, self.signal, self.noise])

    @staticmethod
    def of(flat: Floats) -> "Hyperparameters":
        """Those of an array that ``flat`` gave."""
        return Hyperparameters(flat[:-2], float(flat[-2]), float(flat[-1]))


def covariance(a_ND: Floats, b_MD: Floats, hyper: Hyperparameters) -> Floats:
    """Covariance (N, M) of the function at two sets of inputs.

    Source: Rasmussen & Williams 2006, equation 4.17, with a length an input.
    """
    lengths = np.exp(hyper.lengths_D)
    a, b = a_ND / lengths, b_MD / lengths
    squares = (a**2).sum(1)[:, None] + (b**2).sum(1)[None] - 2 * a @ b.T
    root = np.sqrt(5 * np.maximum(squares, 0.0))
    return np.asarray(np.exp(2 * hyper.signal) * (1 + root + root**2 / 3) * np.exp(-root))


class GaussianProcess:
    """The posterior of a function given noisy values of it.

    Args:
        x_ND: inputs.
        y_N: values; they are standardized inside.
        hyper: hyperparameters, for standardized values.
    """

    def __init__(self, x_ND: Floats, y_N: Floats, hyper: Hyperparameters) -> None:
        from scipy.linalg import cho_factor, cho_solve  # slow to import

        self.hyper = hyper
        self._x_ND = x_ND
        self._mean, self._std = standards(y_N)
        matrix = covariance(x_ND, x_ND, hyper)
        matrix[np.diag_indices_from(matrix)] += self.noise_variance
        self._lower, _ = cho_factor(matrix, lower=True)
        self._weights_N = cho_solve((self._lower, True), (y_N - self._mean) / self._std)

    @property
    def noise_variance(self) -> float:
        """Of a standardized value around the function."""
        return float(np.exp(2 * self.hyper.noise)) + _JITTER

    def at(self, x_CD: Floats) -> "Beliefs":
        """What is believed of the function at inputs."""
        from scipy.linalg import solve_triangular

        cross_CN = covariance(x_CD, self._x_ND, self.hyper)
        mean_C = cross_CN @ self._weights_N
        solved_NC = solve_triangular(self._lower, cross_CN.T, lower=True)
        variance_C = np.exp(2 * self.hyper.signal) - (solved_NC**2).sum(0)
        return Beliefs(self, x_CD, mean_C * self._std + self._mean, variance_C, solved_NC)

    @property
    def unit(self) -> float:
        """The standard deviation of the values: what a standardized one is worth."""
        return self._std


class Beliefs:
    """The means and standard deviations of a function at C inputs, and what more points would do.

    A point is believed: its value is taken to be the mean there. Then no mean changes, and each
    standard deviation falls as after any value. For example, after a point the inputs near it are
    known as well as if it had been trained.

    Source: Ginsbourger, Le Riche & Carraro 2010, section 4.2 (the Kriging believer).
    """

    def __init__(
        self,
        process: GaussianProcess,
        x_CD: Floats,
        mean_C: Floats,
        variance_C: Floats,
        solved_NC: Floats,
    ) -> None:
        self.mean_C = mean_C
        self._process = process
        self._x_CD = x_CD
        self._variance_C = variance_C
        self._solved_NC = solved_NC

    @property
    def sd_C(self) -> Floats:
        """Standard deviations of the function, in the units of the values."""
        return np.sqrt(np.maximum(self._variance_C, 1e-10)) * self._process.unit

    def believe(self, index: int) -> None:
        """Believe the point at one of the inputs."""
        process = self._process
        x_1D = self._x_CD[index : index + 1]
        covariance_C = covariance(x_1D, self._x_CD, process.hyper)[0]
        covariance_C -= self._solved_NC[:, index] @ self._solved_NC
        row_C = covariance_C / np.sqrt(max(self._variance_C[index], 0.0) + process.noise_variance)
        self._solved_NC = np.vstack([self._solved_NC, row_C])
        self._variance_C = self._variance_C - row_C**2


def fit(x_ND: Floats, y_N: Floats) -> GaussianProcess:
    """The process of the most probable hyperparameters.

    Of more than 128 points every so many-th is asked for these; the process has all of them.

    Args:
        x_ND: inputs, of a standard deviation near one.
        y_N: values, in any unit.
    """
    from scipy.optimize import minimize

    chosen = np.arange(len(x_ND))
    if len(chosen) > _MOST_FITTED:
        chosen = np.unique(np.linspace(0, len(chosen) - 1, _MOST_FITTED).round().astype(int))
    mean, std = standards(y_N)
    objective = NegativeLogPosterior(x_ND[chosen], (y_N[chosen] - mean) / std)

    num_inputs = x_ND.shape[1]
    bounds = [_BOUNDS["length"]] * num_inputs + [_BOUNDS["signal"], _BOUNDS["noise"]]
    found = minimize(
        objective,
        objective.prior_mean,
        jac=True,
        method="L-BFGS-B",
        bounds=bounds,
        options={"maxiter": _MOST_STEPS},
    )
    return GaussianProcess(x_ND, y_N, Hyperparameters.of(found.x))


def standards(y_N: Floats) -> tuple[float, float]:
    """Mean and standard deviation; the latter is one where all values are alike."""
    std = float(y_N.std())
    return float(y_N.mean()), std if std > 1e-12 else 1.0


class NegativeLogPosterior:
    """Minus the log-posterior of hyperparameters (up to a constant), and its gradient.

    Args:
        x_ND: inputs.
        y_N: standardized values.

    Source: Rasmussen & Williams 2006, equations 5.8 and 5.9; normal priors of the logarithms.
    """

    def __init__(self, x_ND: Floats, y_N: Floats) -> None:
        num_points, num_inputs = x_ND.shape
        self._y_N = y_N
        self._squares = np.empty((num_inputs, num_points * num_points))
        for d in range(num_inputs):
            column = x_ND[:, d]
            self._squares[d] = ((column[:, None] - column[None]) ** 2).reshape(-1)

        self.prior_mean = np.array([_LENGTH[0]] * num_inputs + [_SIGNAL[0], _NOISE[0]])
        self._prior_std = np.array([_LENGTH[1]] * num_inputs + [_SIGNAL[1], _NOISE[1]])

    def __call__(self, flat: Floats) -> tuple[float, Floats]:
        from scipy.linalg import cho_factor, cho_solve

        hyper = Hyperparameters.of(flat)
        num_points = len(self._y_N)
        weights_D = np.exp(-2 * hyper.lengths_D)
        signal, noise = np.exp(2 * hyper.signal), np.exp(2 * hyper.noise)

        root = np.sqrt(5 * (weights_D @ self._squares)).reshape(num_points, num_points)
        decay = np.exp(-root)
        matrix = signal * (1 + root + root**2 / 3) * decay
        noisy = matrix + (noise + _JITTER) * np.eye(num_points)
        factor = cho_factor(noisy, lower=True)
        inverse = cho_solve(factor, np.eye(num_points))
        alpha_N = inverse @ self._y_N

        departure = (flat - self.prior_mean) / self._prior_std
        value = 0.5 * self._y_N @ alpha_N + np.log(np.diag(factor[0])).sum()
        value += 0.5 * (departure**2).sum()

        # d matrix / d log length_d = slope * squares_d / length_d^2
        outer = inverse - np.outer(alpha_N, alpha_N)
        slope = signal * 5 / 3 * (1 + root) * decay * outer
        lengths = 0.5 * (self._squares @ slope.reshape(-1)) * weights_D
        gradient = np.array([*lengths, (outer * matrix).sum(), noise * np.trace(outer)])
        return float(value), gradient + departure / self._prior_std
