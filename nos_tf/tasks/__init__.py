"""Tasks, and the procedures that turn a rule into a reward on them; long trainings."""
