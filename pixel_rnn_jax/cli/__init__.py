"""The command line: one function for each command, with its flags beside it.

A command prints results, and reads and writes the files that the user names. It imports JAX when
it runs, so that --help is quick.
"""
