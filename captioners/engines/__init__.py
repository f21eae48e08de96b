"""Caption engines run image chat models. They map questions to answers and do not depend on stages."""
