"""A run: training one, its data, its scores, its predictions, its export and import."""
