"""The pipeline: recipes, pools, and the Ray Data jobs that turn one into facts about the other."""
