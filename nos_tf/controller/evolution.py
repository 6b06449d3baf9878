"""Regularised evolution (Real et al. 2019): the learner without a policy that the others have to beat.

A population of the last rules, their rewards beside them. A child is a copy of the best of a few rules drawn from it,
with one token changed; it joins the population when its reward is known, and the oldest leaves. Not reward but age is
what decides: a rule that was lucky once dies like any other. Past that paper, a child may have two parents, and may
drift: go on changing while its update is still that of its parent.

Reference: Real, Aggarwal, Huang & Le, Regularized Evolution for Image Classifier Architecture Search, AAAI 2019.
"""

from collections.abc import Callable

import numpy as np

from nos_tf.controller.agent import Metrics, Samples, State, UniformAgent, check_state, checked_batch
from nos_tf.dsl.rule import UpdateRule
from nos_tf.dsl.space import SearchSpace

DRIFTS = 20  # mutations of a child that do nothing, at most


def neighbour(space: SearchSpace, rule: list[int], rng: np.random.Generator) -> tuple[list[int], float]:
    """A legal rule of which one token is another, and so is what it made illegal after it.

    Args:
      space: what is legal.
      rule: T choices.
      rng: draws.

    Returns:
      T choices, those of the rule itself where the space has no other, and the log-probability of drawing them.
    """
    alternatives = {step: others for step in range(len(rule)) if len(others := _others(space, rule, step))}
    if not alternatives:
        return rule, 0.0
    child = list(rule)
    changed = int(rng.choice(list(alternatives)))
    log_prob = -np.log(len(alternatives))
    for step in range(changed, len(child)):
        if step == changed or not space.legal(child[:step])[child[step]]:
            choices = _others(space, child, step)
            child[step] = int(rng.choice(choices))
            log_prob -= np.log(len(choices))
    return child, float(log_prob)


def _others(space: SearchSpace, rule: list[int], step: int) -> np.ndarray:
    """The other legal choices of one step."""
    legal = np.flatnonzero(space.legal(rule[:step]))
    return legal[legal != rule[step]]


def crossed(space: SearchSpace, rule: list[int], other: list[int], rng: np.random.Generator) -> list[int]:
    """Returns a rule that is one up to some token and another from there on, but where that would not be legal."""
    child = list(rule)
    for step in range(int(rng.integers(1, len(rule))), len(rule)):
        if space.legal(child[:step])[other[step]]:
            child[step] = other[step]
        elif not space.legal(child[:step])[child[step]]:
            child[step] = int(rng.choice(np.flatnonzero(space.legal(child[:step]))))
    return child


class EvolutionAgent:
    """A population that evolves.

    Args:
      space: what is legal.
      seed: of the samples.
      population: how many of the last rules may have children; until there are so many, rules are drawn uniformly.
      tournament: of how many of them, drawn with replacement, the best has a child.
      crossover: the share of children that have two parents; they are mutated too.
      drift: mutate a child until its update is not a multiple of its parent's.
    """

    def __init__(
        self,
        space: SearchSpace,
        seed: int,
        *,
        population: int,
        tournament: int,
        crossover: float = 0.0,
        drift: bool = False,
    ) -> None:
        self._space, self._seed, self._tournament = space, seed, tournament
        self._crossover, self._drift = crossover, drift
        self._uniform = UniformAgent(space, seed)
        self._choices = np.zeros([population, space.num_steps], np.int32)  # a ring: the oldest is overwritten
        self._rewards = np.zeros([population])
        self._count = 0  # of all rules so far

    def propose(self, count: int, iteration: int) -> Samples:
        """Returns rules; the log-probability of a mutated one is that of its mutations, given what was mutated."""
        if self._count < len(self._rewards):
            return self._uniform.propose(count, iteration)
        rng = np.random.default_rng([self._seed, iteration, 1])
        samples = [self._child(rng) for _ in range(count)]
        choices, log_probs = zip(*samples, strict=True)
        return Samples(np.array(choices, np.int32), np.array(log_probs, np.float32))

    def _child(self, rng: np.random.Generator) -> tuple[list[int], float]:
        parent = self._parent(rng)
        begun = parent
        if self._crossover and rng.random() < self._crossover:
            begun = crossed(self._space, parent, self._parent(rng), rng)
        child, log_prob = neighbour(self._space, begun, rng)
        for _ in range(DRIFTS if self._drift else 0):
            if self._update_of(child) != self._update_of(parent):
                break
            child, more = neighbour(self._space, child, rng)
            log_prob += more
        return child, log_prob

    def _update_of(self, choices: list[int]) -> UpdateRule:
        return self._space.rule(choices).direction()[0]

    def _parent(self, rng: np.random.Generator) -> list[int]:
        entrants = rng.integers(len(self._rewards), size=self._tournament)
        return self._choices[entrants[np.argmax(self._rewards[entrants])]].tolist()

    def update(self, choices: np.ndarray, rewards: np.ndarray, log_probs: np.ndarray) -> Metrics:
        """Takes rules `[B, T]` and their rewards `[B]` into the population, in place of the oldest."""
        batch = checked_batch(self._space, choices, rewards, log_probs)
        for rule, reward in zip(batch.choices, batch.rewards, strict=True):
            place = self._count % len(self._rewards)
            self._choices[place], self._rewards[place] = rule, reward
            self._count += 1
        alive = self._rewards[: self._count]
        return {'log_prob': float(batch.log_probs.mean()), 'population_mean': float(alive.mean())}

    def revise(self, reward: Callable[[UpdateRule], float]) -> None:
        """Gives the population the rewards that are known now.

        Args:
          reward: of a rule that was sampled.
        """
        for place in range(min(self._count, len(self._rewards))):
            self._rewards[place] = reward(self._space.rule(self._choices[place]))

    def state(self) -> State:
        """Returns the population as a ring, and how many rules there were."""
        return {'choices': self._choices.copy(), 'rewards': self._rewards.copy(), 'count': np.array(self._count)}

    def restore(self, state: State) -> None:
        """Takes up a state; raises ValueError for one of another population or space."""
        check_state(state, self.state())
        self._choices, self._rewards = state['choices'].copy(), state['rewards'].copy()
        self._count = int(state['count'])
