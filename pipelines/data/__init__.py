"""Data: dataset folders, their sources, importers, exporters and conversions."""
