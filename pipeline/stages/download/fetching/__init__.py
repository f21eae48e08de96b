"""What runs in img2dataset's environment: one URL becomes bytes, or a reason why not.

Only the standard library and img2dataset may be imported here, and syntax stays that of Python 3.9. Imports are
relative, since the child process imports this package without its parents.
"""
