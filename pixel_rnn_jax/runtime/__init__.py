"""Devices, the processes of a run, and storage. It imports only `errors` and `terminal`."""
