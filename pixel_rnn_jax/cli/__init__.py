"""The commands, each with its flags beside it; they import JAX when they run: --help is quick."""
