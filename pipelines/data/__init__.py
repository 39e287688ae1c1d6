"""Dataset folders: import, conversion, storage and export. A module imports only modules further down this list:

export, importing/                  write dataset folders as files of the user's formats, and read such files
formats/                            one module per file format, with a reader and a writer; the table FORMATS
sources/                            data sources that params.yaml names; the table SOURCES
pictures                            image sheets of samples
conversion/                         converts values of files into numbers for models, and back
dataset                             one split, in memory and in its folder
checks, names                       checks of the folder; keys of modalities
manifest, source_values             its manifest, and original values that it keeps
pixels                              pixels of one image file
arrays                              arrays in archives, and arrays larger than memory
"""
