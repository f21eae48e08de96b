"""Captions of films, and questions about them."""
