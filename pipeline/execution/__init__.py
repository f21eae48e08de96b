"""How a recipe is computed: what is to do, Ray jobs and their workers, parts and journals. It knows no stage by name."""
