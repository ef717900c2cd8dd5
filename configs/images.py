"""A folder of pictures of your own, of one size.

Command:   python -m pixel_rnn_jax.main --config=configs/images.py
           trains on the pictures in the folder `images`, --config.data.name=FOLDER on others.
           python -m pixel_rnn_jax.main --config=configs/images.py:row_lstm   (or :pixel_cnn)
           python -m pixel_rnn_jax.main --config=configs/images.py:multi_scale
           makes it a Multi-Scale PixelRNN with images of height 16 and 32.
"""
