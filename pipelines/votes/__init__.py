"""Blind voting: which of the pictures of one prompt and seed do people choose?"""
