"""`vl3syn`: one module for each group of commands. They parse options, call the other packages and print."""
