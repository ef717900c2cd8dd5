"""The command line: one function for each command, with its flags beside it.

A command calls `ImageModel`, `training` or the archive of the codec, prints the results, and reads
and writes the files that the user names. This package imports everything but `main`; what imports
JAX is imported when a command runs, so that --help is quick.
"""
