"""Constraints among columns of tables: found at import, told, and kept by synthetic and imputed rows.

They are stored as the list `constraints` in the entry `conversion` of a manifest, one object for each (`kinds`), if
there are any. `learning` finds them, and `keeping` changes drawn cells so that rows keep them.
"""
