"""Wrong command lines and wrong calls: one sentence, status 2, and not a file more than before."""

import io
import struct
import zlib
from pathlib import Path

import jax
import numpy as np
import pytest
from codec_streams import random_images
from export_files import tiny_model
from PIL import Image

import pixel_rnn_jax as prnn
from pixel_rnn_jax import image_model

# A command line (MODEL stands for --workdir=m.safetensors, TRAIN for --config=digits and a new
# workdir, NUL for a byte of zero, LONG for a name that no file can have) or a call of Python, and
# a part of what is said.
ROWS = r"""
main
    train needs --config=FILE, for example --config=digits
main --workdir=x --config
    train: Missing value for flag --config
main trian
    there is no command trian; did you mean train?
main sample
    sample needs --workdir=DIR, the directory of a training run
main decompress x
    decompress needs --workdir=DIR, the directory of a training run

main --config=no.py:row_lstm
    --config=no.py names no config file: give a path, or one of cifar10, digits, imagenet32, im
main --config=nothing
    --config=nothing names no config file: give a path, or one of cifar10, digits
main --config=aNUL
    --config must be a path, got
main --config=syntax.py
    syntax.py: SyntaxError: invalid syntax
main --config=empty.py
    empty.py is no config file: it defines no function get_config
main --config=raises.py
    raises.py, line 2: ZeroDivisionError: division by zero
main --config=list.py
    the config must be a group of fields, got [1]
main --config=text.png
    text.png, line 1: NameError
main --config=digits:nosuch
    what stands after the colon of --config must be one of "pixel_cnn", "row_lstm"
main TRAIN --worddir=x
    train: Unknown command line flag 'worddir'. Did you mean: workdir ?
main TRAIN --nodistributed=1
    train: --nodistributed=1 does not take an argument
main TRAIN --workdir
    train: Missing value for flag --workdir
main TRAIN more
    train takes nothing but flags, got 'more'
main TRAIN --workdir=own.npy
    own.npy cannot be written to: File exists
main TRAIN --workdir=own.npy/a
    own.npy/a cannot be written to: Not a directory
main TRAIN --workdir=/proc/a
    /proc/a cannot be written to: No such file or directory
main TRAIN --workdir=aNUL
    which has a NUL character
main TRAIN --workdir=~no-one/a --config.data.name=missing.npy
    there is no user 'no-one'; write ./~no-one/a
main TRAIN --workdir=s3://a/b
    s3://a/b is neither a folder nor in a bucket (gs://BUCKET/FOLDER)
main TRAIN --workdir=records
    records has metrics.jsonl but no config.json, so what it holds is not known: use another
main TRAIN --workdir=foreign
    foreign/config.json is not a config that this version can read: it does not hold the fields
main TRAIN --num_processes=2
    --coordinator=HOST:PORT, --num_processes=N and --process_id=I need each other
main TRAIN --coordinator=a:x --num_processes=2 --process_id=0
    --coordinator must be HOST:PORT with a port from 1 to 65535, got a:x
main TRAIN --coordinator=a:1 --num_processes=2 --process_id=5
    --process_id must be from 0 to --num_processes - 1, got 5 of 2
main TRAIN --allow_change=model.layers
    model.layers cannot be changed in a run (--allow_change): choose from data.binarize
main TRAIN --config.init_from=nowhere
    nowhere holds no training run: there is no config.json in it
main TRAIN --config.init_from=m.safetensors
    the parameters of init_from 'm.safetensors' are not those of this model (it lacks:

main TRAIN --config.model.featurs=3
    there is no field model.featurs in the config; did you mean model.features?
main TRAIN --noconfig.model.residul
    there is no field model.residul in the config; did you mean model.residual?
main TRAIN --config.steps 3
    there is no field steps in the config; did you mean train.steps?
main TRAIN --config.model={}
    model is a group of fields; set one of them, for example model.architecture
main TRAIN --config.train.steps=1e3
    train.steps must be an integer, got '1e3'
main TRAIN --config.train.steps=0
    train.steps must be at least 1, got 0
main TRAIN --config.train.batch_size=0
    train.batch_size must be at least 1, got 0
main TRAIN --config.train.batch_size=5 --config.train.micro_batches=2
    train.micro_batches must divide train.batch_size (5), got 2
main TRAIN --config.model.layers=0
    model.layers must be at least 1, got 0
main TRAIN --config.model.architecture=lstm
    model.architecture must be one of "pixel_cnn", "row_lstm", "diagonal_bilstm", got "lstm"
main TRAIN --config.model.skip=maybe
    model.skip must be true or false, got 'maybe'
main TRAIN --config.model.scales=3,9
    model.scales must end with the height of the images, 8, got (3, 9)
main TRAIN --config.model.num_classes=3
    split 'train' of data.name 'digits' has 10 classes, but model.num_classes is 3: set it to
main TRAIN --config.model.condition_vector=2
    has no condition, but model.condition_vector is 2, which takes an array `condition`
main TRAIN --config.optimizer.learning_rate=-1
    optimizer.learning_rate must be greater than 0, got -1.0
main TRAIN --config.optimizer.learning_rate=nan
    optimizer.learning_rate must be a finite number, got nan
main TRAIN --config.optimizer.boundaries=0.5
    optimizer.boundaries must be a tuple of integers, got (0.5,)
main TRAIN --config.optimizer.boundaries='(1,'
    optimizer.boundaries must be a tuple of integers, got '(1,'
main TRAIN --config.seed=-1
    seed must be at least 0 and below 2**32, got -1

main TRAIN --config.data.levels=1
    data.levels must be 0 or at least 2, got 1
main TRAIN --config.data.levels=3
    has the value 5, but its values must be 0 to 2
main TRAIN --config.data.name=missing.npy
    data.name 'missing.npy': there is no such file; if it has moved, say where it is now
main TRAIN --config.data.name=text.npz
    cannot be read as an array: it is no .npy or .npz file
main TRAIN --config.data.name=objects.npz
    data.name 'objects.npz' cannot be read as an array: it holds objects, not numbers
main TRAIN --config.data.name=floats.npy
    values of type float64, but model.output "softmax" takes integers from 0 to K-1: turn the
main TRAIN --config.data.name=shapes.npz
    the test images have shape (3, 4, 1)
main TRAIN --config.data.name=splits.npz --config.model.num_classes=2
    has no labels: model.num_classes must be 0
main TRAIN --config.data.name=./nothing
    data.name './nothing': there are no image files in nothing
main TRAIN --config.data.train_split=nosuch
    data.name 'digits' has no split 'nosuch': choose from all, test, train, validation
main TRAIN --config.data.test_split=train[:0]
    split 'train' of data.name 'digits' has 1,297 images, of which 'train[:0]' takes none

main sample --workdir=nowhere
    nowhere holds no training run: there is no config.json in it
main sample --workdir=aNUL
    which has a NUL character
main sample --workdir=text.png
    text.png is not a safetensors file: give one that `save` or the command `export` wrote
main sample --workdir=cut.safetensors
    cut.safetensors is damaged or cut off (its header does not fit the rest): copy or export it
main sample --workdir=foreign
    foreign/config.json is not a config that this version can read
main sample MODEL x
    sample takes nothing but flags, got 'x'
main sample MODEL --n=0
    sample: flag --n=0: 0 is not a positive integer
main sample MODEL --n=-1
    sample: flag --n=-1: -1 is not a positive integer
main sample MODEL --n=1.5
    sample: flag --n=1.5: invalid literal for int() with base 10: '1.5'
main sample MODEL --temperature=-1
    sample: flag --temperature=-1: -1.0 is not a non-negative number
main sample MODEL --seed=-1
    sample: flag --seed=-1: -1 is not an integer in the range [0, 4294967295]
main sample MODEL --out=a.jpg
    a .png or .npz file, or to a folder without an ending, got 'a.jpg'
main sample MODEL --out=own.npy
    a .png or .npz file, or to a folder without an ending, got 'own.npy'
main sample MODEL --out=texts
    texts is there already and is no empty folder: choose another name
main sample MODEL --out=
    --out= names no path: name one, or leave the flag out
main sample MODEL --out=gs://a/b.png
    'gs://a/b.png' is not the name of a file or folder on this machine
main sample MODEL --out=aNUL.png
    which has a NUL character
main sample MODEL --out=~no-one/a.png
    there is no user 'no-one'; write ./~no-one/a
main sample MODEL --out=folder.npz
    folder.npz is a folder: give the name of a file
main export MODEL --out=/
    / is a folder: give the name of a file
main sample MODEL --out=own.npy/a.png
    own.npy/a.png cannot be written: Not a directory
main sample MODEL --compilation_cache=own.npy
    --compilation_cache=own.npy cannot be a folder: File exists
main sample --workdir=gs://[BUCKET]/a
    gs://[BUCKET]/a is neither a folder nor in a bucket (gs://BUCKET/FOLDER)
main sample MODEL --out=LONG
    cannot be written: File name too long
main sample --workdir=digits
    digits holds no training run: there is no config.json in it
main sample MODEL --label=1
    --label is for a model with classes, and this one has none: leave it out
main sample --workdir=classes.safetensors --label=fir
    there is no class 'fir': the classes are ash, elm, oak
main sample --workdir=classes.safetensors --label=fir --condition=single.npy
    leave out one of --label and --condition
main sample --workdir=classes.safetensors --label=7
    condition must be from 0 to 2, got 7 to 7
main sample --workdir=classes.safetensors --condition=vectors.npy
    condition must have shape [3], classes from 0 to 2, got [3, 2]
main sample --workdir=vectors.safetensors
    this model needs a condition, a vector for each image, of shape [64, 2]
main sample --workdir=vectors.safetensors --condition=missing.npy
    --condition=missing.npy cannot be read as an array: [Errno 2] No such file or directory
main sample --workdir=vectors.safetensors --condition=text.npz
    cannot be read as an array: it is no .npy or .npz file
main sample --workdir=vectors.safetensors --condition=splits.npz
    --condition=splits.npz holds no array `condition`
main sample --workdir=vectors.safetensors --condition=single.npy
    --condition=single.npy must hold a row for each image, got a single value
main sample --workdir=vectors.safetensors --condition=zero.npy
    --condition=zero.npy must hold a row for each image, got no rows
main sample --workdir=vectors.safetensors --condition=own.npy
    condition must have shape [6, 2], a vector for each image, got [6, 4, 4, 1]
main sample --workdir=real.safetensors --out=a
    PNG files cannot hold images of real values and 1 channels: write them to an .npz file

main complete MODEL
    m.safetensors holds a model without its data set: give --images=PATH, or the workdir of the
main complete MODEL --images=own.npy --known=half
    what is known must be top_half, bottom_half, left_half, right_half or an image file
main complete MODEL --images=own.npy --known=large.png
    large.png must be as large as the images, 4x4, got 9x9
main complete MODEL --images=own.npy --known=text.png
    text.png cannot be read as an image: cannot identify image file
main complete MODEL --images=own.npy --known=white.png
    --known=white.png makes every pixel known: name another half, or a file in which some are
main complete --workdir=row.safetensors --images=row.npy --known=top_half
    --known=top_half makes no pixel known: name another half
main complete MODEL --images=mixed --out=mixed/4.png
    --out=mixed/4.png would replace --images: give it another name
main complete MODEL --images=own.npy --known=large.png --out=large.png
    --out=large.png would replace --known: give it another name
main complete MODEL --images=own.npy --particles=0
    complete: flag --particles=0: 0 is not a positive integer
main complete MODEL --images=own.npy --out=a.jpg
    to a folder without an ending, got 'a.jpg'
main complete MODEL --images=own.npy --data=splits.npz
    --data is for the images of the run: leave it out with --images
main complete MODEL --images=mnist
    mnist': there is no such folder or image file
main complete MODEL --images=splits.npz
    is divided into test, train, validation: give a folder or file that holds one of these
main complete MODEL --images=splits.npz --split=nosuch
    has no split 'nosuch': choose from test, train, validation
main complete MODEL --images=own.npy --split=test[:0]
    has 1 images, of which 'test[:0]' takes none
main complete --workdir=classes.safetensors --images=own.npy
    has no labels: give an .npz file with an array `labels`

main evaluate MODEL
    m.safetensors holds a model without its data set: give --images=PATH, or the workdir of the
main evaluate MODEL TRAIN
    evaluate: Unknown command line flag 'config'. Did you mean: continuous ?
main evaluate MODEL --images=four.npy
    four.npy' has the value 3, the model takes 0 to 2
main evaluate MODEL --images=own.npy --per_value
    --per_value needs --out=FILE.npz
main evaluate MODEL --images=own.npy --out=a.npy
    ends in .npz, got 'a.npy'
main evaluate MODEL --images=own.npy --out=folder.npz
    folder.npz is a folder: give the name of a file
main evaluate MODEL --images=splits.npz --split=test --out=./splits.npz
    --out=./splits.npz would replace --images: give it another name
main evaluate MODEL --images=own.npy --out=aNUL.npz
    which has a NUL character
main evaluate MODEL --images=own.npy --pixel_map=a.jpg
    a picture must be written to a file that ends in .png, got 'a.jpg'
main evaluate MODEL --dequantize=1
    --dequantize=N and --continuous=DIR, the workdir of a continuous model, need each other
main evaluate MODEL --images=own.npy --continuous=a --dequantize=1
    leave out --images, --out and --data

main compress MODEL
    compress needs --images=PATH, a folder, an image file, or an .npy or .npz file
main compress MODEL --images=LONG
    /aaaaaaaaaaaaaaa
main compress MODEL --images=missing.npy
    missing.npy': there is no such file
main compress MODEL --images=aNUL
    which has a NUL character
main compress MODEL --images=~no-one/a
    there is no user 'no-one'; write ./~no-one/a
main compress MODEL --images=text.npz
    cannot be read as an array: it is no .npy or .npz file
main compress MODEL --images=objects.npz
    cannot be read as an array: it holds objects, not numbers
main compress MODEL --images=objects.npy
    cannot be read as an array: Array can't be memory-mapped: Python objects in dtype
main compress MODEL --images=empty.npz
    empty.npz' cannot be read as an array: No data left in file
main compress MODEL --images=none.npz
    none.npz' must hold one array, or arrays named train, validation and test, got none
main compress MODEL --images=texts.npz
    texts.npz' must hold integers from 0 to K-1 or real numbers, got <U1
main compress MODEL --images=zero.npy
    zero.npy' must hold an array of shape [N, H, W] or [N, H, W, C], got [0, 4, 4, 1]
main compress MODEL --images=cut.npy
    cut.npy' cannot be read as an array: mmap length is greater than file size
main compress MODEL --images=floats.npy
    floats.npy' has values of type float64, the model takes integers from 0 to 2 (unscaled)
main compress MODEL --images=large.png
    large.png has shape [9, 9, 1], the model takes [4, 4, 1]
main compress MODEL --images=nothing
    nothing': there are no image files in
main compress MODEL --images=texts
    texts': there are no image files in
main compress MODEL --images=texts/a.txt
    texts/a.txt' must be a folder, an .npy or .npz file, or an image file ending in .bmp
main compress MODEL --images=text.png
    text.png cannot be read as an image: cannot identify image file
main compress MODEL --images=huge.png
    huge.png cannot be read as an image: Image size (10000000000 pixels) exceeds limit
main compress MODEL --images=mixed
    must have one size and mode
main compress MODEL --images=cmyk.tif
    cmyk.tif has mode 'CMYK', whose values are not intensities: convert the images to grey
main compress MODEL --images=large.png --split=test
    is one image, which has no split 'test': name no split
main compress MODEL --images=stretched.pgm
    stretched.pgm has the maximum 15 in its header, and would be read as if that were 255 or 65
main compress MODEL --images=zip.npy
    zip.npy' is an .npz file by what it holds: name it so
main compress MODEL --images=own.npy --out=own.npy
    --out=own.npy would replace --images: give it another name
main compress MODEL --images=own.npy --out=nothing
    nothing is a folder: give the name of a file
main compress MODEL --images=own.npy --out=own.npy/a.prnn
    own.npy/a.prnn cannot be written:
main compress MODEL --images=own.npy --out=
    --out= names no path: name one, or leave the flag out
main compress MODEL --images=own.npy --out=gs://a/b.prnn
    'gs://a/b.prnn' is not the name of a file or folder on this machine
main compress MODEL --images=own.npy --out=/dev/full
    /dev/full cannot be written: No space left on device
main compress --workdir=real.safetensors --images=floats.npy
    a continuous model gives images no probability, so that it has no conditionals and no codec

main append a MODEL
    append needs --images=PATH, a folder, an image file, or an .npy or .npz file
main append - MODEL --images=own.npy
    append needs a file, not the standard input: it writes to it as well
main append missing.prnn MODEL --images=own.npy
    missing.prnn cannot be read: No such file or directory
main append text.png MODEL --images=own.npy
    this is not a compressed file of pixel_rnn_jax
main append cut.prnn MODEL --images=own.npy
    append to an intact copy
main append x.prnn --workdir=classes.safetensors --images=labelled.npz
    the compressed file was written with another model
main decompress MODEL
    decompress needs a file, for example decompress images.prnn
main decompress MODEL a b
    decompress takes nothing but flags, got 'b'
main decompress --file=a MODEL b
    decompress takes nothing but flags, got 'b'
main decompress missing MODEL
    missing cannot be read: No such file or directory
main decompress nothing MODEL
    nothing cannot be read: Is a directory
main decompress aNUL MODEL
    which has a NUL character
main decompress text.png MODEL
    this is not a compressed file of pixel_rnn_jax
main decompress cut.prnn MODEL
    the compressed file is cut off: images 1 to the last cannot be read: get an intact copy
main decompress x.prnn --workdir=classes.safetensors
    the compressed file was written with another model
main decompress x.prnn MODEL --out=a.jpg
    to a folder without an ending, got 'a.jpg'
main decompress x.prnn MODEL --out=own.npy/a
    own.npy/a cannot be written:
main decompress x.prnn MODEL --out=texts
    texts is there already and is no empty folder: choose another name
main decompress x.prnn MODEL --out=x.prnn
    --out=x.prnn would replace --file: give it another name
main extract MODEL a
    extract needs names of images, for example extract images.prnn cat.png
main extract x.prnn nosuch MODEL
    no image of x.prnn has a name: decompress it
main info
    info needs a file, for example info images.prnn
main info a b
    info takes nothing but flags, got 'b'
main info text.png
    this is not a compressed file of pixel_rnn_jax
main info cut.prnn
    the file is damaged: get an intact copy, or decompress --skip_damaged
main verify cut.prnn MODEL
    the file is damaged: get an intact copy, or decompress --skip_damaged
main verify x.prnn --workdir=nowhere
    nowhere holds no training run: there is no config.json in it
main export --workdir=nowhere
    nowhere holds no training run: there is no config.json in it
main export MODEL --out=nothing
    nothing is a folder: give the name of a file
main export MODEL --out=own.npy/a
    own.npy/a cannot be written:
main export MODEL --out=
    --out= names no path: name one, or leave the flag out
main --config=digits --workdir=
    --workdir= names no path: name one, or leave the flag out
main evaluate MODEL --images=
    --images= names no path: name one, or leave the flag out
main export MODEL --out=aNUL
    which has a NUL character

model.sample(0, 1)
    key must be one of jax.random, such as jax.random.key(0), got 0
model.sample(key, -1)
    n must be at least 0, got -1
model.sample(key, 1.5)
    n must be an integer, got 1.5
model.log_prob(images, per_value="no")
    per_value must be True or False, got 'no'
model.compress(images, fast="no")
    fast must be True or False, got 'no'
model.sample(key, True)
    n must be an integer, got True
model.sample(key, 10**12)
    images take 59,605 GiB
model.sample(key, 1, temperature="hot")
    temperature must be a number of at least 0, got 'hot'
classes.sample(key, 2, [0])
    condition must have shape [2], classes from 0 to 2, got [1]
classes.sample(key, 1, [0.5])
    condition must be integers, classes from 0 to 2, got float64 values
model.log_prob(images / 1.0)
    images must be integers from 0 to 2 (unscaled), got float64 values
model.log_prob(images[0])
    images must have shape [B, 4, 4, 1], got [4, 4, 1]
model.log_prob(images - 1)
    images must have values from 0 to 2, got -1 to 1
model.log_prob(images.transpose(0, 3, 1, 2))
    images must have shape [B, 4, 4, 1], got [6, 1, 4, 4]: transpose the array to [N, H, W, C]
model.log_prob("images")
    images must have shape [B, 4, 4, 1], got []
model.log_prob([[1, 2], [3]])
    images must be an array, got list:
model.log_prob(images.astype(object))
    images must be integers from 0 to 2 (unscaled), got object values
real.log_prob(images)
    a model of real values takes floats, got int32 values: convert them
real.bits_per_dim(images / 1.0)
    real values have no bits/dim: use log_prob, in nats per their unit
model.complete(key, images, "top_half")
    known must be booleans, got <U8 values
model.complete(key, images, images[0] > 0, particles=0)
    particles must be an integer of at least 1, got 0
model.complete(key, images, images[0] > 0, particles=1.5)
    particles must be an integer of at least 1, got 1.5
model.complete(key, images, images[0] > 0, particles=True)
    particles must be an integer of at least 1, got True
model.compress(images + 1)
    images must have values from 0 to 2, got 1 to 3
model.decompress(b"text")
    this is not a compressed file of pixel_rnn_jax
model.decompress("text")
    data must be bytes, got str
[*model.decompress_stream("x.prnn")]
    file must be open for reading in binary mode, "rb", got 'x.prnn'
model.decompress_stream(io.StringIO())
    file must be open for reading in binary mode, "rb", got
model.decompress(b"text", skip_damaged="no")
    skip_damaged must be True or False, got 'no'
model.decompress(b"text", return_condition="no")
    return_condition must be True or False, got 'no'
model.push_to_hub("a/b", private="false")
    private must be True or False, got 'false'
model.save("nothing")
    nothing is a folder: give the name of a file
model.save(3)
    path must be a path, got 3
prnn.load("nowhere")
    nowhere holds no training run: there is no config.json in it
prnn.load(None)
    path must be a path, got None
prnn.create(prnn.ModelConfig(), (4, 4), 2)
    image_shape must be (H, W, C) with sizes of at least 1, got (4, 4)
prnn.create(prnn.ModelConfig(), (4, 4, 1), 2.5)
    image_shape and levels must be integers, got (4, 4, 1) and 2.5
prnn.create(prnn.ModelConfig(), (4, 4, 1), 2**24 + 1)
    levels must be from 2 to 16,777,216, got 16,777,217
prnn.create(prnn.ModelConfig(), (4, 4, 1), 2, seed=2**32)
    seed must be an integer from 0 to 2**32 - 1, got 4294967296
prnn.create("pixel_cnn", (4, 4, 1), 2)
    config must be a ModelConfig, got 'pixel_cnn'
prnn.ModelConfig(layers=True)
    model.layers must be an integer, got True
prnn.Config("pixel_cnn")
    model must be a ModelConfig, got 'pixel_cnn'
prnn.fit("images")
    images must be numbers of shape [N, H, W] or [N, H, W, C], got [] of <U6
prnn.fit(images[:1])
    validation needs images of its own, got 1 in all
prnn.fit(images, "pixel_cnn")
    config must be a Config or a ModelConfig, got str
prnn.fit(images, validation="test")
    validation must be numbers of shape [N, H, W] or [N, H, W, C], got [] of <U4
prnn.fit([[1, 2], [3]])
    images must be an array: setting an array element with a sequence
prnn.fit(images, validation=(images,))
    validation must be a pair of images and their condition, got 1 arrays
prnn.read_images("missing")
    missing': there is no such folder or image file
"""
TRAIN = "--config=digits --workdir=new"


def rows():
    lines = [line for line in ROWS.split("\n") if line]
    for words, message in zip(lines[::2], lines[1::2], strict=True):
        yield pytest.param(words, message.removeprefix("    "), id=words)


def write_pictures():
    """Writes image files that no model of images of 4x4 takes."""

    def chunk(kind, data=b""):
        return (
            struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        )

    size = struct.pack(">IIBBBBB", 10**5, 10**5, 8, 0, 0, 0, 0)
    parts = chunk(b"IHDR", size), chunk(b"IDAT", zlib.compress(b"")), chunk(b"IEND")
    Path("huge.png").write_bytes(b"\x89PNG\r\n\x1a\n" + b"".join(parts))
    Image.new("L", (9, 9)).save("large.png")
    Image.new("L", (4, 4), 255).save("white.png")
    Path("stretched.pgm").write_bytes(b"P5 4 4 15 " + bytes(range(16)))
    Image.new("CMYK", (4, 4)).save("cmyk.tif")
    Path("mixed").mkdir()
    for width in (4, 5):
        Image.new("L", (width, 4)).save(f"mixed/{width}.png")


@pytest.fixture(scope="module")
def bench(tmp_path_factory):
    """A folder of models, images and what is neither; returns it, and names for the calls."""
    folder = tmp_path_factory.mktemp("bench")
    models = {
        "m": tiny_model(),
        "row": tiny_model(shape=(1, 8, 1)),
        "classes": tiny_model(num_classes=3, class_names=("ash", "elm", "oak")),
        "vectors": tiny_model(condition_vector=2),
        "real": tiny_model(levels=0, output="gaussian_mixture"),
    }
    model = models["m"]
    images = random_images(model, 6)
    splits = dict.fromkeys(("train", "validation", "test"), images.astype(np.uint8))
    objects, stream = np.array([[[None]]]), model.compress(images)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        for name, saved in models.items():
            saved.save(f"{name}.safetensors")
        for name, array in {
            "own": images,
            "row": images.reshape(-1, 1, 8, 1),
            "four": images + 1,
            "floats": images / 3,
            "zero": images[:0],
            "vectors": np.zeros((3, 2)),
            "single": np.zeros(()),
            "objects": objects,
        }.items():
            np.save(name, array)
        for name, arrays in {
            "splits": splits,
            "shapes": splits | {"test": splits["test"][:, :3]},
            "none": {},
            "objects": {"a": objects},
            "texts": {"a": np.array([[["a"]]])},
            "labelled": {"images": images, "labels": np.arange(6) % 3},
        }.items():
            np.savez(name, **arrays)
        for name in ("nothing", "texts", "folder.npz", "records", "foreign"):
            Path(name).mkdir()
        for name, content in {
            **dict.fromkeys(("text.png", "text.npz", "texts/a.txt"), b"hello"),
            "empty.npz": b"",
            "x.prnn": stream,
            "zip.npy": Path("splits.npz").read_bytes(),
            "cut.prnn": stream[:-30],
            "cut.safetensors": Path("m.safetensors").read_bytes()[:-9],
            "cut.npy": Path("own.npy").read_bytes()[:-9],
            "syntax.py": b"def get_config(:\n",
            "empty.py": b"",
            "raises.py": b"def get_config():\n    1 / 0\n",
            "list.py": b"def get_config():\n    return [1]\n",
            "records/metrics.jsonl": b"{}",
            "foreign/config.json": b"{}",
        }.items():
            Path(name).write_bytes(content)
        write_pictures()
    names = {
        "io": io,
        "key": jax.random.key(0),
        "images": images,
        "model": model,
        "np": np,
        "prnn": prnn,
    }
    return folder, names | models


def listing(folder):
    """What is there, and when it was written."""
    return {path: (path.stat().st_size, path.stat().st_mtime_ns) for path in folder.rglob("*")}


@pytest.mark.parametrize("words, message", [*rows()])
def test_a_mistake_ends_in_one_sentence(words, message, bench, run, monkeypatch, capfd):
    folder, names = bench
    monkeypatch.chdir(folder)
    monkeypatch.setattr(image_model, "in_batches", lambda *_, **__: pytest.fail("worked"))
    before = listing(folder)
    if words.startswith("main"):
        words = words.replace("TRAIN", TRAIN).replace("MODEL", "--workdir=m.safetensors")
        words = words.replace("LONG", 300 * "a" + ".npz")
        assert run(words.removeprefix("main").replace("NUL", "\0")) == 2
        said = capfd.readouterr().err
        assert said.startswith("error: ") and said.endswith("\n")
        said = said.removeprefix("error: ").removesuffix("\n")
    else:
        with pytest.raises(prnn.UserError) as error:
            eval(words, names)
        said = str(error.value)
    assert message in said and "\n" not in said and "pickled" not in said
    assert listing(folder) == before
