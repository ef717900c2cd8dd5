"""A cluster of stand-ins, which refuse what the real tools would not take."""

import pytest
from cluster import Cluster


@pytest.fixture
def cluster(tmp_path):
    made = Cluster(tmp_path / "cluster")
    yield made
    refused = made.directory / "refused"
    assert not refused.exists(), refused.read_text()
