"""Decoding of image files: formats, colour modes, bit depths, metadata and worker processes."""
