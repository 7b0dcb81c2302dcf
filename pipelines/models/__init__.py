"""Models: what their files say, how they are opened, kept and told apart."""
