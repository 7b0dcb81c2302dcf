"""Methods compared over many prompts: what can be told apart, and what cannot."""
