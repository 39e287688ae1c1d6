"""Data: dataset folders, where they come from and what they become. Imports run down this list only:

export       importing/                dataset folders as files of their users, and these as dataset folders
formats/                               a kind of file a module, read and written; the table FORMATS
sources/     pictures     exchange     data that are made here; sheets of samples; codes of others
conversion/                            values of files as numbers that models learn, and back
dataset                                the folder of a split, in memory and on the disk
checks       source_values  arrays     what it must satisfy, and what it keeps of its files
"""
