"""Sets of perturbed images, and the manifests of what is in their folders."""
