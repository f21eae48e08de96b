"""Sources of training samples and what turns them into packed rows. It may import core, manifests and model."""
