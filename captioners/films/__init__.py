"""Texts about clips of films, by a chat model that sees the clip's stored frames: dense captions and summaries."""
