"""Bayesian optimisation in the space of functions: a learner for when rewards are dear and thought is cheap.

A Gaussian process learns the reward of a rule from what the rule does (`dsl/embedding.py`), not from how it is spelled.
Of many candidates, uniform ones and neighbours of the best rules so far, it proposes those that are best in functions
drawn from its posterior (Thompson sampling): what is promising, and what it knows little of.

Reference: Thompson, Biometrika 1933; Hernandez-Lobato et al., Parallel and Distributed Thompson Sampling, ICML 2017.
"""

import warnings

import numpy as np
from sklearn.exceptions import ConvergenceWarning
from sklearn.gaussian_process import GaussianProcessRegressor
from sklearn.gaussian_process.kernels import Matern, WhiteKernel

from nos_tf.controller.agent import Metrics, Samples, State, UniformAgent, check_state, checked_batch
from nos_tf.controller.evolution import neighbour
from nos_tf.dsl.embedding import embedding
from nos_tf.dsl.equivalence import PROBES
from nos_tf.dsl.space import SearchSpace

KERNEL = Matern(16.0, (1.0, 1000.0), nu=1.5) + WhiteKernel(0.1, (1e-4, 1.0))  # before it is fitted
JITTER = 1e-6  # relative, on the diagonal of the posterior covariance


class BayesianAgent:
    """A Gaussian process over rules.

    Args:
      space: what is legal.
      seed: of the samples.
      initial: rules that are drawn uniformly before there is a model.
      candidates: rules that the model looks at for each batch; half of them are neighbours of good ones.
      parents: of how many of the best rules.
      memory: rules that the model knows at most: the best ones and the last ones, one half each.
    """

    def __init__(
        self, space: SearchSpace, seed: int, *, initial: int, candidates: int, parents: int, memory: int
    ) -> None:
        self._space, self._seed = space, seed
        self._initial, self._candidates, self._parents, self._memory = initial, candidates, parents, memory
        self._uniform = UniformAgent(space, seed)
        self._choices = np.zeros([0, space.num_steps], np.int32)
        self._points = np.zeros([0, PROBES])  # of the same rules
        self._rewards = np.zeros([0])
        self._kernel, self._fitted = KERNEL, 0  # and to how many rules

    def propose(self, count: int, iteration: int) -> Samples:
        """Returns rules that were not tried, as long as there are any; their log_probs are those of uniform rules."""
        uniform = self._uniform.propose(max(count, self._candidates), iteration)
        if len(self._rewards) < self._initial:
            return Samples(uniform.choices[:count], uniform.log_probs[:count])
        rng = np.random.default_rng([self._seed, iteration, 1])
        choices = self._untried(np.concatenate([self._neighbours(rng), uniform.choices]))
        choices = choices[: max(count, self._candidates)]
        chosen = self._sampled_best(choices, count, rng) if len(choices) > count else choices
        chosen = np.concatenate([chosen, uniform.choices])[:count]
        return Samples(chosen, self._uniform.log_prob(chosen))

    def _neighbours(self, rng: np.random.Generator) -> np.ndarray:
        """Neighbours of the best rules, each function once: int32 [candidates / 2, T]."""
        order = np.argsort(-self._rewards, kind='stable')
        _, first = np.unique(self._points[order], axis=0, return_index=True)
        best = self._choices[order[np.sort(first)[: self._parents]]]
        parents = rng.integers(len(best), size=self._candidates // 2)
        children = [neighbour(self._space, best[parent].tolist(), rng)[0] for parent in parents]
        return np.array(children, np.int32).reshape(-1, self._space.num_steps)

    def _untried(self, choices: np.ndarray) -> np.ndarray:
        """The rules whose function is new, each function once, in their order."""
        points = np.concatenate([self._points, self._embedded(choices)])
        _, first = np.unique(points, axis=0, return_index=True)
        return choices[np.sort(first[first >= len(self._choices)]) - len(self._choices)]

    def _embedded(self, choices: np.ndarray) -> np.ndarray:
        return np.array([embedding(self._space.rule(rule)) for rule in choices.tolist()])

    def _sampled_best(self, choices: np.ndarray, count: int, rng: np.random.Generator) -> np.ndarray:
        """The best rule in each of count functions that the posterior draws, all different."""
        points = self._embedded(choices)
        mean, covariance = self._model().predict(points, return_cov=True)
        scale = np.trace(covariance) / len(points)
        root = np.linalg.cholesky(covariance + JITTER * scale * np.eye(len(points)))
        draws = mean[:, None] + root @ rng.standard_normal([len(points), count])
        chosen: list[int] = []
        for order in np.argsort(-draws, axis=0).T:
            chosen.append(next(int(i) for i in order if i not in chosen))
        return choices[chosen]

    def _model(self) -> GaussianProcessRegressor:
        """The process, given the rules that it remembers."""
        known = self._remembered()
        rewards = self._rewards[known]
        self._fit_kernel()
        # the noise apart from the kernel: it is of rewards, and not of the functions that the posterior draws
        function, noise = self._kernel.k1, self._kernel.k2.noise_level
        model = GaussianProcessRegressor(function, alpha=noise, optimizer=None, normalize_y=bool(rewards.std()))
        return model.fit(self._points[known], rewards)

    def _remembered(self) -> np.ndarray:
        count = len(self._rewards)
        if count <= self._memory:
            return np.arange(count)
        last = np.arange(count - self._memory // 2, count)
        best = np.argsort(-self._rewards[: last[0]], kind='stable')[: self._memory - len(last)]
        return np.concatenate([best, last])

    def _fit_kernel(self) -> None:
        """Fits the kernel's two parameters whenever the rules have doubled: a function of all rules alone."""
        known = min(len(self._rewards), self._memory)
        count = self._initial * 2 ** int(np.log2(known / self._initial))
        if self._fitted == count:
            return
        rewards = self._rewards[:count]
        model = GaussianProcessRegressor(KERNEL, normalize_y=bool(rewards.std()))
        with warnings.catch_warnings():
            warnings.simplefilter('ignore', ConvergenceWarning)  # a parameter at its bound
            self._kernel = model.fit(self._points[:count], rewards).kernel_
        self._fitted = count

    def update(self, choices: np.ndarray, rewards: np.ndarray, log_probs: np.ndarray) -> Metrics:
        """Takes note of rules `[B, T]` and their rewards `[B]`."""
        batch = checked_batch(self._space, choices, rewards, log_probs)
        self._choices = np.concatenate([self._choices, batch.choices])
        self._points = np.concatenate([self._points, self._embedded(batch.choices)])
        self._rewards = np.concatenate([self._rewards, batch.rewards])
        return {'log_prob': float(batch.log_probs.mean()), 'known_best': float(self._rewards.max())}

    def state(self) -> State:
        """Returns all rules and rewards: the model follows from them."""
        return {'choices': self._choices.copy(), 'rewards': self._rewards.copy()}

    def restore(self, state: State) -> None:
        """Takes up a state; raises ValueError for one of another space."""
        count = len(state.get('rewards', ()))
        check_state(state, {'choices': np.zeros([count, self._space.num_steps], np.int32), 'rewards': np.zeros(count)})
        self._choices, self._rewards = state['choices'].copy(), state['rewards'].copy()
        self._points = self._embedded(self._choices).reshape(count, PROBES)
        self._kernel, self._fitted = KERNEL, 0
