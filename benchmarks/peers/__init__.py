"""The same work by us, by others and by a loop of few lines: on the same images, with the same weights, in turns."""
