"""Side-by-side measurements; each prints a ratio or a figure against its target, and can be run alone."""
