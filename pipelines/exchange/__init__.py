"""The run log in files that others read, and back from one of them."""
