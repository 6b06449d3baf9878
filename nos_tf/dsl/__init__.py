"""The language of update rules (Section 3.1): what can be said, and what it means. No TensorFlow."""
