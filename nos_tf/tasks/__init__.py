"""What an update rule is judged on: images, a child network, and the procedure that turns a rule into a reward."""
