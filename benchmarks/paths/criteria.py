"""Criteria by which a sequence can choose a path: each scores how well sequences fit a path.

A criterion gets the network, the sequences from which it may learn and those that it scores, and
returns (tasks, batch) scores, of which the largest one chooses.
"""

import math
from collections.abc import Callable, Mapping

import numpy as np
import torch
from scipy.stats import multivariate_normal
from sklearn.covariance import OAS, EmpiricalCovariance
from sklearn.linear_model import Ridge
from torch import Tensor

from thalnet_mtl.models.network import Network
from thalnet_mtl.models.path_choice import PathChooser
from thalnet_mtl.tasks.batch import Batch

Fits = Mapping[str, Batch]  # training sequences by task
Criterion = Callable[[Network, Fits, Batch], np.ndarray]


def likelihood(network: Network, fits: Fits, batch: Batch) -> np.ndarray:
    """Score by log p of the inputs under probabilistic PCA of whole sequences, or token pairs."""
    chooser = PathChooser()
    for task, fit in fits.items():
        chooser.fit(task, network.adapter(task).task, fit.xs, fit.lengths)
    values: np.ndarray = chooser.log_likelihoods(batch.xs, batch.lengths).T.numpy()
    return values


def shrunk_gaussian(network: Network, fits: Fits, batch: Batch) -> np.ndarray:
    """Score by log p of the inputs under a Gaussian whose full covariance is shrunk (OAS)."""
    scores = []
    for fit in fits.values():
        model = OAS().fit(fit.xs.flatten(1).double().numpy())
        scores.append(_log_density(model, batch.xs.flatten(1)))
    return np.stack(scores)


def next_input(network: Network, fits: Fits, batch: Batch) -> np.ndarray:
    """Score by log p of each input given the features of the path at the step before it."""
    scores = []
    for task, fit in fits.items():
        before, inputs = _steps(network, task, fit)
        model = Ridge(1.0).fit(before, inputs)
        noise = OAS().fit(inputs - model.predict(before))
        before, inputs = _steps(network, task, batch)
        values = _log_density(noise, torch.from_numpy(inputs - model.predict(before)))
        scores.append(values.reshape(batch.xs.shape[:2]).sum(1))
    return np.stack(scores)


def mahalanobis(network: Network, fits: Fits, batch: Batch) -> np.ndarray:
    """Score by the distance of the last features to the nearest class, a number.

    Lee et al., "A simple unified framework for detecting out-of-distribution samples", 2018.
    """
    scores = []
    for task, fit in fits.items():
        points, queries = (_last(network, task, part) for part in (fit, batch))
        means = {int(label): points[fit.ys == label].mean(0) for label in fit.ys.unique()}
        centered = points - np.stack([means[int(label)] for label in fit.ys])
        model = EmpiricalCovariance(assume_centered=True).fit(centered)
        distances = [model.mahalanobis(queries - mean) for mean in means.values()]
        scores.append(-np.min(distances, 0) / points.shape[1])
    return np.stack(scores)


def entropy(network: Network, fits: Fits, batch: Batch) -> np.ndarray:
    """Score by minus the entropy of the answer, as a share of that of guessing."""
    answers = [network(task, batch.xs)[0].softmax(-1) for task in fits]
    return np.stack([-torch.special.entr(p).sum(-1) / math.log(p.shape[-1]) for p in answers])


def agreement(network: Network, fits: Fits, batch: Batch) -> np.ndarray:
    """Score by the mean probability that the heads give to the class that a head chooses."""
    answers = torch.stack([network(task, batch.xs)[0].softmax(-1) for task in fits])
    chosen = answers.argmax(-1, keepdim=True)
    values: np.ndarray = answers.mean(0).expand_as(answers).gather(-1, chosen)[..., 0].numpy()
    return values


CRITERIA: dict[str, Criterion] = {
    "likelihood, 16 components": likelihood,
    "likelihood, full covariance, shrunk": shrunk_gaussian,
    "likelihood of the next input given features": next_input,
    "Mahalanobis distance of features to a class": mahalanobis,
    "entropy of the answer": entropy,
    "agreement of heads": agreement,
}


def _log_density(model: EmpiricalCovariance, points: Tensor) -> np.ndarray:
    normal = multivariate_normal(model.location_, model.covariance_, allow_singular=True)
    values: np.ndarray = normal.logpdf(points.double().numpy())
    return values


def _last(network: Network, task: str, batch: Batch) -> np.ndarray:
    """Return the features that the head of a task reads, (batch, features)."""
    values: np.ndarray = network.features(task, batch.xs)[0][:, -1].double().numpy()
    return values


def _steps(network: Network, task: str, batch: Batch) -> tuple[np.ndarray, np.ndarray]:
    """Return the features before each step, zero before the first one, and the inputs."""
    features, _ = network.features(task, batch.xs)
    before = torch.cat([torch.zeros_like(features[:, :1]), features[:, :-1]], 1)
    return before.flatten(0, 1).double().numpy(), batch.xs.flatten(0, 1).double().numpy()
