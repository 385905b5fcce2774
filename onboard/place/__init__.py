"""Pure geometry: trajectory, terrain, orthocorrection, geotags, coverage."""
