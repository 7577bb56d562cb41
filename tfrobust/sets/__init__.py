"""Sets of perturbed images, and manifests of their folders."""
