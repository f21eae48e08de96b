"""Captions from what is measured, without a chat model: labels, colours, composition, light, writing."""
