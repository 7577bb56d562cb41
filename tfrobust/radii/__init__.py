"""How far each image can be changed: radii that are proved, and distances that attacks found."""
