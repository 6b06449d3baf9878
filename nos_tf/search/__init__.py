"""The search: the loop, where the learner and the tasks meet."""
