"""Saving and loading: safetensors files, written atomically. Nothing is ever pickled."""

from dlcore.io.atomic import write_atomic
from dlcore.io.safetensors import load, load_arrays, load_metadata, save

__all__ = ["load", "load_arrays", "load_metadata", "save", "write_atomic"]
