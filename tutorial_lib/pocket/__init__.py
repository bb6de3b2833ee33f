"""The pocket world: small pictures drawn by code, with their captions and their ground truth."""
