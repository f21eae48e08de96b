"""What single settings of VideoLLaMA3 change, at tiny size: `benchmarks/evidence/ablations.py`."""
