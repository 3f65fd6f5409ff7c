"""What makes a text worth a person's time: the arithmetic on probabilities and features, of arrays alone.

- A text is uncertain where the two most probable labels are close (the margin of Scheffer et al. 2001), or for
  several labels per text where the entropies of its labels are great.
- Texts cover the data where no text is far from a labelled one: the greedy k-center choice of Sener & Savarese 2018
  (arXiv 1708.00489).
- A label is doubted where a head that has not seen the row finds another one more probable (as in the confident
  learning of Northcutt et al. 2021, arXiv 1911.00068).
"""

import numpy as np
from scipy.special import entr

from bertcls_hf.data.labels import SINGLE_LABEL


def uncertainty(outputs: np.ndarray, problem_type: str) -> np.ndarray:
    """Says how unsure a head is of each row.

    Args:
        outputs: (rows, labels) probabilities.
        problem_type: names the task.

    Returns:
        (rows,) float. For single labels 1 minus the margin between the first two, between 0 and 1; for several labels
        the sum of the entropies of the yes-or-no questions, in nats.
    """
    if problem_type == SINGLE_LABEL:
        second, first = np.partition(outputs, -2, axis=1)[:, -2:].T
        return 1 - (first - second)
    return (entr(outputs) + entr(1 - outputs)).sum(axis=1)


def highest(values: np.ndarray, number: int) -> np.ndarray:
    """Returns the positions of the `number` highest of (rows,) values, the highest first; earlier rows win ties."""
    if number < len(values):
        least = np.partition(values, -number)[-number]
        # Of the rows that tie for the last place, the first are taken.
        above, tied = np.flatnonzero(values > least), np.flatnonzero(values == least)
        found = np.concatenate([above, tied[: number - len(above)]])
    else:
        found = np.arange(len(values))
    return found[np.lexsort((found, -values[found]))]


def k_center(points: np.ndarray, centers: np.ndarray, number: int) -> np.ndarray:
    """Chooses points one after the other, each the farthest from all centers and from the points chosen before.

    Args:
        points: (points, features) float32.
        centers: (centers, features) float32; without any, the first choice is the point closest to the mean.
        number: how many points to choose.

    Returns:
        The positions of the chosen points, (`number`,) int or as many as there are, in the order of the choice.
    """
    squares = np.einsum("ij,ij->i", points, points)

    def distances_to(position: int) -> np.ndarray:
        return _distances(points, squares, points[position : position + 1])[:, 0]

    number, chosen = min(number, len(points)), []
    if len(centers):
        distances = _distance_to_nearest(points, squares, centers)
    elif number:
        chosen.append(int(_distances(points, squares, points.mean(axis=0, keepdims=True)).argmin()))
        distances = distances_to(chosen[0])
    while len(chosen) < number:
        # Not even of equal points is one chosen twice.
        distances[chosen] = -1
        chosen.append(int(distances.argmax()))
        distances = np.minimum(distances, distances_to(chosen[-1]))
    return np.array(chosen, dtype=int)


def _distance_to_nearest(points: np.ndarray, squares: np.ndarray, centers: np.ndarray) -> np.ndarray:
    """Returns the squared distance of each point to its nearest center, (points,) float32."""
    nearest = np.full(len(points), np.inf, dtype=np.float32)
    for start in range(0, len(centers), 512):
        found = _distances(points, squares, centers[start : start + 512]).min(axis=1)
        nearest = np.minimum(nearest, found)
    return nearest


def _distances(points: np.ndarray, squares: np.ndarray, centers: np.ndarray) -> np.ndarray:
    """Returns squared Euclidean distances, (points, centers)."""
    of_centers = np.einsum("ij,ij->i", centers, centers)
    return np.maximum(squares[:, None] + of_centers - 2 * (points @ centers.T), 0)


def doubts(outputs: np.ndarray, gold: np.ndarray, problem_type: str) -> np.ndarray:
    """Says how far probabilities speak against the labels of rows.

    Args:
        outputs: (rows, labels) probabilities of heads that have not seen the rows.
        gold: (rows,) positions, or (rows, labels) of 0 and 1.
        problem_type: names the task.

    Returns:
        (rows,) float between -1 and 1: how much more probable the best other label is than the given one; for several
        labels the greatest such difference over the labels. Above 0, the heads would label the row otherwise.
    """
    if problem_type == SINGLE_LABEL:
        rows = np.arange(len(gold))
        others = outputs.copy()
        others[rows, gold] = -np.inf
        return others.max(axis=1) - outputs[rows, gold]
    given = np.where(gold > 0, outputs, 1 - outputs)
    return 1 - 2 * given.min(axis=1)
