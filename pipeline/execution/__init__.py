"""Compute a recipe: Ray jobs, their workers, parts and journals. Nothing here depends on a particular stage."""
