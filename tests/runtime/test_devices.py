"""Meshes that share a batch equally, and the devices of a CPU."""

import sys
from unittest.mock import Mock

import jax
import jax.numpy as jnp
import numpy as np
import programs
import pytest

from pixel_rnn_jax.errors import UserError
from pixel_rnn_jax.runtime import devices


@pytest.mark.parametrize(("batch", "size"), [(8, 8), (12, 6), (7, 7), (5, 5), (1, 1), (22, 2)])
def test_mesh_shares_the_batch_equally(batch, size):
    assert devices.mesh_for(batch).size == size


def test_processes_contribute_equally_many_neighbouring_devices(monkeypatch):
    local = {0: jax.devices()[:4], 1: jax.devices()[4:]}
    monkeypatch.setattr(jax, "process_count", lambda: 2)
    monkeypatch.setattr(jax, "local_devices", lambda process=0: local[process][::-1])
    assert [device.id for device in devices.make_mesh(3).devices] == [0, 1, 2, 4, 5, 6]
    with pytest.raises(UserError, match="a multiple of the number of processes, got 3 for 2"):
        devices.mesh_for(3)
    local[1] = local[1][:2]
    with pytest.raises(UserError, match=r"the same number of devices, they have \[2, 4\]"):
        devices.make_mesh()


def test_a_batch_is_split_and_its_rows_come_back_in_order():
    mesh = devices.make_mesh()
    batch = devices.shard_batch(mesh, np.arange(16.0))
    assert {shard.data.shape for shard in batch.addressable_shards} == {(2,)}
    double = devices.map_batch(lambda factor, x: factor * x, mesh)
    rows = devices.local_rows(double(jnp.full(1, 2.0), batch))
    np.testing.assert_array_equal(rows, 2 * np.arange(16.0))


PROGRAM = """if True:
    import os
    from pixel_rnn_jax.runtime import devices
    devices.set_up_host_devices()
    import jax
    print(jax.device_count(), len(os.sched_getaffinity(0)), os.environ["XLA_FLAGS"])
"""


@pytest.mark.parametrize(
    ("environment", "number"),
    [
        ({}, None),
        ({"JAX_NUM_CPU_DEVICES": "3"}, 3),
        ({"XLA_FLAGS": "--xla_force_host_platform_device_count=4"}, 4),
    ],
)
def test_every_core_is_a_device_unless_the_environment_says_otherwise(environment, number):
    clean = programs.environment()
    del clean["JAX_NUM_CPU_DEVICES"]
    result = programs.run(sys.executable, "-c", PROGRAM, env=clean | environment)
    count, cores, flags = result.stdout.split(maxsplit=2)
    assert int(count) == (number or int(cores))
    assert "--xla_cpu_multi_thread_eigen=false" in flags


@pytest.mark.parametrize("error", [RuntimeError("Unable to initialize backend"), AssertionError()])
def test_platforms_without_a_device_are_one_sentence(monkeypatch, error):
    monkeypatch.setenv("JAX_PLATFORMS", "cuda")
    monkeypatch.setattr(jax, "local_devices", Mock(side_effect=error))
    for mesh in (devices.make_mesh, lambda: devices.local_mesh(1)):
        with pytest.raises(UserError, match="no device of JAX_PLATFORMS=cuda: unset it, or"):
            mesh()
