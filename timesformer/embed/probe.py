"""A head that is fitted to features which were computed once: a linear probe.

Shape letters: V videos, D features, K classes.
"""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler
from torch import Tensor, nn

from timesformer.embed.scores import STEPS, Labels, Matrix
from timesformer.models.base import VideoModel
from timesformer.utils.errors import ConfigError, UserError

NEVER = -1e4  # the bias of a class without videos, which the head then never says


def fit_head(
    features: Matrix, labels: Labels, classes: int, strength: float
) -> tuple[Tensor, Tensor]:
    """Fit logistic regression to standardised features, as `scores.probe_accuracy` does.

    Args:
        features: (V, D).
        labels: (V,), from 0 to K - 1.
        classes: K.
        strength: C, the inverse of the penalty on the weights.

    Returns:
        Weights (K, D) and biases (K,) for features as they come.

    Raises:
        UserError: all videos are of one class.
    """
    if len({*labels.tolist()}) < 2:
        raise UserError("all videos are of one class: there is nothing to tell apart")
    scale = StandardScaler().fit(features)
    model = LogisticRegression(C=strength, max_iter=STEPS)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # what the steps have reached is taken
        model.fit(scale.transform(features), labels)
    weight, bias = model.coef_, model.intercept_
    if len(weight) == 1:  # of two classes, one row says the second
        weight, bias = np.concatenate([-weight, weight]) / 2, np.concatenate([-bias, bias]) / 2
    weight = weight / scale.scale_
    bias = bias - weight @ scale.mean_
    whole_weight, whole_bias = np.zeros((classes, features.shape[1])), np.full(classes, NEVER)
    whole_weight[model.classes_], whole_bias[model.classes_] = weight, bias
    return torch.from_numpy(whole_weight).float(), torch.from_numpy(whole_bias).float()


def give_head(model: VideoModel, weight: Tensor, bias: Tensor, names: tuple[str, ...]) -> None:
    """Replace a model's head, in place.

    Raises:
        ConfigError: its head is none that takes features (V, D).
    """
    if model.architecture is None:
        raise ConfigError("a model of the registry is needed, which says what it is made of")
    model.reset_classifier(len(weight), names)
    head: Any = model.get_classifier()
    if not isinstance(head, nn.Linear) or head.weight.shape != weight.shape:
        raise ConfigError(f"{model.architecture.model} has no head that takes the features alone")
    with torch.no_grad():
        head.weight.copy_(weight)
        head.bias.copy_(bias)


def accuracy(features: Matrix, labels: Labels, weight: Tensor, bias: Tensor) -> float:
    """Return the share of videos that a head gets right."""
    found: NDArray[Any] = (features @ weight.numpy().T + bias.numpy()).argmax(1)
    return float((found == labels).mean())
