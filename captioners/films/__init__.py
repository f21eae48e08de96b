"""Texts about clips of films, by a chat model: dense captions, summaries and questions."""
