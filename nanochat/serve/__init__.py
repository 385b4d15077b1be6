"""Ways to talk to a model: in the terminal. `conversation` is what they share."""
