"""Fine-tuning and control of text-to-image diffusion models: the library of the course."""
