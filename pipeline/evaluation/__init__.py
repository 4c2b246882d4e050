"""Scores with intervals, paired tests, mistakes, and the report."""
