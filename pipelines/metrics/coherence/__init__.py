"""Coherence: do the modalities of a sample belong together?"""
