"""What a model learns from four choices out of one raw pool: `benchmarks/evidence/train_arms.py`."""
