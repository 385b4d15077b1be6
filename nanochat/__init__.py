"""nanochat: a complete small ChatGPT in readable Python and PyTorch."""

__version__ = "0.1.0"
