"""In-painting: masks, clicks, and what the model sees of a picture."""
