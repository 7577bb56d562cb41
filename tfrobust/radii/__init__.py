"""How far each image can be changed: certified radii, and distances that attacks found."""
