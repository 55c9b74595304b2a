"""Ridge regression of many outputs, for all penalties by one factorisation."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import scipy.linalg

from torchcell.baselines.base import one_thread


class RidgePath:
    r"""W = argmin ||Y - X W||^2 + \alpha s ||W||^2, X and Y centred, s the mean squared length of X's rows.

    The penalty is thereby counted in samples, whatever the units of X. The eigenvectors of X X^T, or of X^T X where
    there are fewer features than samples, serve every alpha.

    Args:
        x_nF: Features [n, F].
        y_nG: Outputs [n, G].
    """

    def __init__(self, x_nF: np.ndarray, y_nG: np.ndarray) -> None:
        self.x_mean_F, self.y_mean_G = x_nF.mean(0), y_nG.mean(0)
        x, y = x_nF - self.x_mean_F, y_nG - self.y_mean_G
        self.dual = len(x) <= x.shape[1]
        with one_thread():
            # The eigenvalues of either product are those of the other: the squared singular values of X.
            value, vector = scipy.linalg.eigh(x @ x.T if self.dual else x.T @ x)
            self.value = np.maximum(value, 0)
            self.scale = self.value.sum() / len(x) or 1.0
            self.left = x.T @ vector if self.dual else vector
            self.right = vector.T @ (y if self.dual else x.T @ y)

    def predict(self, x_mF: np.ndarray, alpha: float) -> np.ndarray:
        """Outputs for new features at one penalty, float64 [m, G]."""
        return self._at(self._turned(x_mF), alpha)

    def choose(self, x_mF: np.ndarray, alphas: Sequence[float], score: Callable[[np.ndarray], float]) -> float:
        """The penalty whose prediction for ``x_mF`` scores best; the strongest of equals."""
        turned_mK = self._turned(x_mF)
        return max(sorted(alphas, reverse=True), key=lambda alpha: score(self._at(turned_mK, alpha)))

    def _turned(self, x_mF: np.ndarray) -> np.ndarray:
        """Features along the eigenvectors, which every penalty shares."""
        with one_thread():
            return (x_mF - self.x_mean_F) @ self.left

    def _at(self, turned_mK: np.ndarray, alpha: float) -> np.ndarray:
        with one_thread():
            return self.y_mean_G + turned_mK @ (self.right / (self.value + alpha * self.scale)[:, None])
