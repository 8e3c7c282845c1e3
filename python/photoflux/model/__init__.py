"""What is trained: variants, their layers, weights, settings and history."""
