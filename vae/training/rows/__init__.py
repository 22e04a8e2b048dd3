"""How rows reach a step of the training."""
