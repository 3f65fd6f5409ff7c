"""What regressions read in place of plain features, so that their penalty treats all of them alike."""

from dataclasses import dataclass

import numpy as np
from sklearn.preprocessing import StandardScaler

from bertcls_hf.features.regressions import Regression


# How many times the cosines of descriptions count, beside features of deviation 1, so that a penalty hardly holds them
# back. Of 10, 30, 100 and 300, 30 and 100 were best with 8 texts of a label (IMDB, NSMC, BBC News).
DESCRIPTION_WEIGHT = 50.0
# The logit of a cosine of 1, where nothing but descriptions is known.
SHARPNESS = 20.0


@dataclass(frozen=True)
class Vectors:
    """The features of rows, and of what their labels mean, by one encoder.

    Args:
        rows: (rows, width) floats.
        descriptions: (labels, width) floats, of a text for each label; None without descriptions.
    """

    rows: np.ndarray
    descriptions: np.ndarray | None = None


@dataclass(frozen=True)
class Scaling:
    """Scales features to mean 0 and deviation 1, and adds how near each text is to the description of each label.

    Nearness is the cosine with the description, both seen from the mean of all texts or of all descriptions, but for
    the length of a text's vector, for which the mean length stands.

    Args:
        scaler: scales the features.
        directions: (labels, width) floats, whose product with a centred text is its weighed nearness; or None.
    """

    scaler: StandardScaler
    directions: np.ndarray | None = None

    @classmethod
    def fit(cls, vectors: Vectors) -> "Scaling":
        """Takes means and deviations from some rows."""
        scaler = StandardScaler().fit(vectors.rows)
        if vectors.descriptions is None:
            return cls(scaler)
        centred = vectors.descriptions - vectors.descriptions.mean(axis=0)
        lengths = np.linalg.norm(centred, axis=1, keepdims=True)
        spread = np.linalg.norm(vectors.rows - scaler.mean_, axis=1).mean()
        tiny = np.finfo(np.float32).tiny
        return cls(scaler, DESCRIPTION_WEIGHT * centred / np.maximum(lengths, tiny) / max(spread, tiny))

    def transform(self, features: np.ndarray, copy: bool = True) -> np.ndarray:
        """Returns (rows, width) floats, or (rows, width + labels) with descriptions.

        Args:
            features: (rows, width) floats.
            copy: whether they stay as they are, for twice the memory.
        """
        if self.directions is None:
            return self.scaler.transform(features, copy=copy)
        nearness = features @ self.directions.T - self.directions @ self.scaler.mean_
        scaled = self.scaler.transform(features, copy=copy)
        return np.concatenate([scaled, nearness], axis=1, dtype=scaled.dtype)

    def of_features(self, regression: Regression) -> Regression:
        """Turns a regression that reads what [`transform`] returns into one that reads plain features."""
        width = len(self.scaler.mean_)
        weights = regression.weights[:, :width] / self.scaler.scale_
        plain = Regression(weights, regression.biases - weights @ self.scaler.mean_)
        return plain if self.directions is None else plain.plus(self._of_nearness(regression.weights[:, width:]))

    def nearest(self) -> Regression:
        """The regression that knows nothing but the descriptions: the nearest one has the greatest logit."""
        assert self.directions is not None
        return self._of_nearness(np.eye(len(self.directions)) * SHARPNESS / DESCRIPTION_WEIGHT)

    def _of_nearness(self, weights: np.ndarray) -> Regression:
        """Returns the regression that gives each nearness (labels, labels) weights."""
        assert self.directions is not None
        of_features = weights @ self.directions
        return Regression(of_features, -of_features @ self.scaler.mean_)
