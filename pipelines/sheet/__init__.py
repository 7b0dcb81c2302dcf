"""A comparison as a picture, a page and files."""
