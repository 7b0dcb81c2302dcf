"""Hosted models: their pictures, made by a provider."""
