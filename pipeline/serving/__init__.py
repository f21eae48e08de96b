"""Serve a trained model: OpenAI's chat completions over HTTP."""
