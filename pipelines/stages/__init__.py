"""Stages of the pipeline; each reads artefacts, calls the library, and writes artefacts and results."""
