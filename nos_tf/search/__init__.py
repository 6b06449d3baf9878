"""The search itself, where the two towers meet: rules go out as tokens, rewards come back as numbers."""
