"""Devices, the processes of a run, and storage. It imports `errors` alone of the package."""
