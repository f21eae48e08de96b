"""How a recipe is computed: Ray jobs, their workers, parts and journals. It knows no stage by name."""
