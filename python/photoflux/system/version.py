"""The version of PhotoFlux."""

__version__ = "0.1.0"
