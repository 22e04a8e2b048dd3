"""Earlier states, and how to go back to them."""
