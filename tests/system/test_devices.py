"""Meshes that share a batch equally, the devices of a CPU, and programs that are compiled once."""

import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import programs

from pixel_rnn_jax.system import devices
from pixel_rnn_jax.system.errors import UserError


@pytest.mark.parametrize(("batch", "size"), [(8, 8), (12, 6), (7, 7), (1, 1), (22, 2)])
def test_mesh_shares_the_batch_equally(batch, size):
    assert devices.mesh_for(batch).size == size


def test_processes_contribute_equally_many_neighbouring_devices(monkeypatch):
    local = {0: jax.devices()[:3], 1: jax.devices()[3:]}
    monkeypatch.setattr(jax, "process_count", lambda: 2)
    monkeypatch.setattr(jax, "local_devices", lambda process=0: local[process][::-1])
    assert [device.id for device in devices.make_mesh(2).devices] == [0, 1, 3, 4]
    assert [device.id for device in devices.mesh_for(40).devices] == [0, 1, 3, 4]
    assert devices.make_mesh().size == 6
    with pytest.raises(UserError, match=r"train\.batch_size"):
        devices.mesh_for(3)


def test_a_batch_is_split_and_its_rows_come_back_in_order():
    mesh = devices.make_mesh()
    batch = devices.shard_batch(mesh, np.arange(16.0))
    assert {shard.data.shape for shard in batch.addressable_shards} == {(2,)}
    double = devices.map_batch(lambda factor, x: factor * x, mesh)
    rows = np.asarray(double(jnp.full(1, 2.0), batch))
    np.testing.assert_array_equal(rows, 2 * np.arange(16.0))


PROGRAM = """if True:
    import os, sys
    from pixel_rnn_jax.system import devices
    devices.set_up_host_devices()
    devices.keep_programs()
    import jax
    assert "--xla_cpu_multi_thread_eigen=false" in os.environ["XLA_FLAGS"]
    jax.jit(lambda x: x + 1)(1)
    print(jax.device_count(), len(os.sched_getaffinity(0)))
"""


def test_every_core_is_a_device_and_programs_are_kept(tmp_path):
    environment = programs.environment({"XDG_CACHE_HOME": str(tmp_path)})
    del environment["JAX_NUM_CPU_DEVICES"]
    environment.pop("JAX_COMPILATION_CACHE_DIR", None)
    kept = []
    for _ in range(2):
        result = programs.run(sys.executable, "-c", PROGRAM, env=environment)
        count, cores = map(int, result.stdout.split())
        assert count == cores
        kept.append({path.name for path in tmp_path.glob("pixel-rnn-jax/*/*-cache")})
    assert kept[0] == kept[1] != set()  # The second start has compiled nothing.
