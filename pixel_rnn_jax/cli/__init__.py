"""The command line: the verbs with their flags, and the only place that prints results.

A verb calls `ImageModel` or `training`, prints what came out, and reads and writes the files that
the user names. The command line may import everything but `main`.
"""
