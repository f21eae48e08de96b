"""The stages that a recipe can name. Their base classes are in core/stages.py."""
