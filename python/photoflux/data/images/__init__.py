"""One image file to pixels: formats, decoding, colours, depth."""
