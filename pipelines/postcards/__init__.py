"""A small Stable Diffusion, trained from scratch on painted and captioned postcards."""
