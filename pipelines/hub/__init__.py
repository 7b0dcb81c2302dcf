"""The Hugging Face Hub: search, plans, downloads, and what lies on this machine."""
