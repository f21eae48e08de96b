"""`python -m pipeline` is `vl3syn`."""

from pipeline.cli import main

main()
