"""The controller: an LSTM that writes rules, and what learns from their rewards (Section 3.2)."""
