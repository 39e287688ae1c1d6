"""Import files as dataset folders: read, join, split, convert and summarise the sources."""
