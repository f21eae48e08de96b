"""The lines of gpu_proof.py. A line is a generator of figures; proof.py runs it in a process of its own."""
