"""Models as files: safetensors and JSON. Loading runs no code from the files."""

from jali.archive.folder import load, load_weights, save

__all__ = ["load", "load_weights", "save"]
