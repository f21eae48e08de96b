"""Sources of training samples, and their preparation into packed rows. May import core, manifests and model."""
