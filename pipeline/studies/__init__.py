"""Questions that take more than one run: which is better, what each ingredient is worth, how sure a score is."""
