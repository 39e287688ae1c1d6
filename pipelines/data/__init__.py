"""Data: dataset folders, where they come from and what they become. Imports run down this list only:

export, importing/                  dataset folders as files of their users, and such files as dataset folders
formats/                            a kind of file a module, read and written; the table FORMATS
sources/                            data that params.yaml names; the table SOURCES
pictures                            sheets of samples
conversion/                         values of files as numbers that models learn, and back
dataset                             one split, in memory and in its folder
checks, manifest, source_values     what the folder must satisfy, what it says, what it keeps of its files
arrays                              in archives, and larger than memory
"""
