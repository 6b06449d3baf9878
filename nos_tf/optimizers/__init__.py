"""Rules at work: what each primitive computes on tensors, a Keras optimizer, an interpreter for the search."""
