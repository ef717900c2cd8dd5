"""What a run stands on: device meshes, the processes of a run, and storage.

Nothing here knows about models, data or training. It may import `errors` and nothing else of the
package.
"""
