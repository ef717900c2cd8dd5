"""What a workdir holds: its config and image format, checkpoints, records, pictures and lock.

Opening a trained run lives here as well, and the file that a trained model is exported to. Runs may
import `config`, `pixel_rnn`, `pictures`, `outputs`, `terminal`, `runtime`, `paths`, `shipped` and
`errors`; they know nothing of training or of data sets.
"""
