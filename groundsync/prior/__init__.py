"""Prior geology: layers, weights of evidence, the model and its validation."""
