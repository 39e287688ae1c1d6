"""The pixels of image files.

reading     what a file holds, and its pixels, upright and exact
writing     files with given pixels
modes       modes of pixels, their conversion, resizing
"""
