"""Serving: a small HTTP server for a SavedModel, for use without TensorFlow Serving."""
