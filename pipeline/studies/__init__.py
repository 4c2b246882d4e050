"""Questions that no single run answers: which rate, which is better, what each ingredient is worth, how sure."""
