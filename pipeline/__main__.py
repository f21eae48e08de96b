"""`python -m pipeline` is `vl3syn`."""

from pipeline.commands.app import main

main()
