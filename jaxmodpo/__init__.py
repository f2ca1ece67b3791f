"""Multi-objective preference alignment of language models on JAX."""

__version__ = "0.1.0"
