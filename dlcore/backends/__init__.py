"""Backends, one per file; each offers `load() -> Backend` and is imported when first used."""
