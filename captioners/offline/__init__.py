"""Captions from measurements, without a chat model: labels, colours, composition, light, text in the image."""
