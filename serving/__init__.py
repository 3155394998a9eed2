"""The way out: feature vectors for models that serve, point-in-time datasets for models that train."""
