"""Every Redis key and script, behind one store per aggregate."""
