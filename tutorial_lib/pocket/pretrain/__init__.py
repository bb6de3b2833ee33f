"""Trains the pocket model from nothing: `python -m tutorial_lib pretrain clip|vae|judge|unet|all`."""
