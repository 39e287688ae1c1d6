"""Generation: samples, conditional draws, completion and what serves them."""
