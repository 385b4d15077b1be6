"""Ways to talk to a model: in the terminal, and over HTTP with a page. `conversation` is what they share."""
