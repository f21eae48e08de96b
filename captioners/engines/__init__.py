"""Caption engines: how an image chat model is run. They map questions to answers and know nothing of stages."""
