"""Privacy: do samples give away rows that were trained on?"""
