"""Foreign data as dataset folders: sources read, joined, split, converted and summed up."""
