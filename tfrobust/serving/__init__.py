"""Serving: a small HTTP server for a SavedModel, for those without TensorFlow Serving."""
