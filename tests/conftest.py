"""Tests marked `slow` run where the environment variable STPT2IMC_SLOW is set; continuous integration leaves them out."""
import os

import pytest


def pytest_configure(config):
    config.addinivalue_line("markers", "slow: takes about a minute or several processes; runs with STPT2IMC_SLOW=1")


def pytest_collection_modifyitems(items):
    if "STPT2IMC_SLOW" in os.environ: return
    for item in items:
        if item.get_closest_marker("slow"): item.add_marker(pytest.mark.skip(reason="slow: set STPT2IMC_SLOW=1"))
