"""Densities that a VAE should beat, fitted on the same rows: a single Gaussian or independent Bernoullis, and a mixture."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, Self

import numpy as np
from scipy.special import logsumexp
from sklearn.cluster import KMeans
from sklearn.mixture import GaussianMixture
from sklearn.preprocessing import StandardScaler

from pipeline.evaluation.marginals import IndependentColumns
from pipeline.tables.labels import condition
from pipeline.tables.schema import Schema
from pipeline.tables.slices import some_of
from pipeline.tables.statistics import Array

ENOUGH = 100_000  # rows: a baseline has so few parameters that more would hardly move them


class Density(Protocol):
    """The part of scikit-learn's mixture interface that is used here."""

    def fit(self, X: Array) -> Self:
        """Fit to rows (N, D)."""

    def score_samples(self, X: Array) -> Array:
        """Log density per row, (N,), in nats."""


class BernoulliMixture:
    """A mixture of products of Bernoullis, fitted by EM (Bishop 2006, section 9.3.3), in scikit-learn's interface.

    Weights and probabilities are posterior modes under Dirichlet(2) and Beta(2, 2) priors, so that no row has probability zero
    (one component: Laplace's rule of succession). scikit-learn has Gaussian mixtures only.

    Args:
        n_components: Number of components; one is the product of independent Bernoullis.
        random_state: Seed of k-means, which gives the initial responsibilities.
        tol: Stop when the mean objective rises by less.
        max_iter: EM steps at most.
    """

    def __init__(self, n_components: int = 1, random_state: int = 0, tol: float = 1e-4, max_iter: int = 500) -> None:
        self.n_components, self.random_state, self.tol, self.max_iter = n_components, random_state, tol, max_iter

    def fit(self, X: Array) -> Self:
        """Fit to rows (N, D) in {0, 1}."""
        X = np.asarray(X, dtype=np.float64)
        labels = KMeans(self.n_components, n_init=1, random_state=self.random_state).fit_predict(X)
        self._maximise(X, np.eye(self.n_components)[labels])
        previous = -np.inf
        for _ in range(self.max_iter):
            joint = self._joint(X)
            total = logsumexp(joint, axis=1, keepdims=True)
            log_prior = float(np.log(self.weights_).sum() + (np.log(self.means_) + np.log1p(-self.means_)).sum())
            objective = total.mean() + log_prior / len(X)  # what EM raises, not the likelihood alone
            if objective - previous < self.tol:
                break
            previous = objective
            self._maximise(X, np.exp(joint - total))
        return self

    def score_samples(self, X: Array) -> Array:
        """Log probability per row, (N,), in nats."""
        return logsumexp(self._joint(np.asarray(X, dtype=np.float64)), axis=1)

    def _maximise(self, X: Array, responsibilities: Array) -> None:
        counts = responsibilities.sum(axis=0)
        self.weights_ = (counts + 1) / (len(X) + self.n_components)
        self.means_ = (responsibilities.T @ X + 1) / (counts[:, None] + 2)

    def _joint(self, X: Array) -> Array:
        return np.log(self.weights_) + X @ np.log(self.means_).T + (1 - X) @ np.log1p(-self.means_).T


class StandardizedGaussianMixture:
    """scikit-learn's mixture of full-covariance Gaussians, fitted in standardised units and scored in the given ones.

    Its regularisation is in units of the data, so that it fails or distorts where these are very large or small.

    Args:
        n_components: Number of components.
        random_state: Seed of the initialisation.
    """

    def __init__(self, n_components: int = 1, random_state: int = 0) -> None:
        self._scaler, self._mixture = StandardScaler(), GaussianMixture(n_components, random_state=random_state)

    def fit(self, X: Array) -> Self:
        """Fit to rows (N, D)."""
        self._mixture.fit(self._scaler.fit_transform(np.asarray(X, dtype=np.float64)))
        return self

    def score_samples(self, X: Array) -> Array:
        """Log density per row, (N,), in nats."""
        X = self._scaler.transform(np.asarray(X, dtype=np.float64))
        return self._mixture.score_samples(X) - np.log(self._scaler.scale_).sum()


@dataclass(frozen=True)
class Baseline:
    """A fitted density by name.

    Attributes:
        name: ``gaussian``, ``bernoulli`` or ``independent``, and ``mixture``.
        density: What scores rows.
        described: Its number of components, or the family of each column.
    """

    name: str
    density: Density
    described: Mapping[str, Any]


def fitted_rows(rows: Array, seed: int) -> Array:
    """The rows (N, D) that a baseline is fitted to: all, or 100,000 of them at random."""
    return np.asarray(rows[some_of(len(rows), ENOUGH, seed)])


def fit_baselines(
    train: Array, valid: Array, schema: Schema, *, components: Sequence[int], seed: int, totals: Sequence[Sequence[int]] = ()
) -> list[Baseline]:
    """Fit a single density to complete columns of one kind, and the mixture that is best on ``valid``.

    Numbers of components above the number of training rows are left out. Gaussians have full covariances. Columns of several
    kinds, or with missing values, have no such mixtures: each column is modelled by itself then. Those whose total is
    given (``totals``) are shares of it.
    """
    train, valid = (np.asarray(rows, dtype=np.float64) for rows in (train, valid))
    if totals or not schema.is_plain:
        independent = IndependentColumns(schema, totals).fit(train)
        given = {"given": condition(totals, schema.names)} if totals else {}
        return [Baseline("independent", independent, {"families": independent.families_} | given)]

    family: Callable[..., Density] = BernoulliMixture if schema.is_binary else StandardizedGaussianMixture

    def fitted(count: int) -> Density:
        return family(n_components=count, random_state=seed).fit(train)

    counts = [count for count in components if count <= len(train)] or [1]
    mixtures = {count: fitted(count) for count in counts}
    best = max(mixtures, key=lambda count: mixtures[count].score_samples(valid).mean())
    return [
        Baseline("bernoulli" if schema.is_binary else "gaussian", fitted(1), {"components": 1}),
        Baseline("mixture", mixtures[best], {"components": best}),
    ]
