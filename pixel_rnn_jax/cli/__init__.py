"""The command line: the verbs with their flags, and the only place that prints results.

A verb calls `ImageModel`, `training`, or (where images need not all be in memory) the archive of
the codec. It prints what comes out, and reads and writes the files that the user names. The command
line may import everything but `main`.
"""
