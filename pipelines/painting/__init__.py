"""From resolved requests and a loaded model to pictures, with everything measured on the way."""
