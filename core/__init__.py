"""Code that several packages share.

This package imports no other package of the project, and neither Ray nor torch at import time.
"""
