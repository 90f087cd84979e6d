"""Tests marked `slow` run where the environment variable STPT2IMC_SLOW is set; continuous integration leaves them out.

Hypothesis draws the same examples in every run, so that a change is judged by what it changes; with STPT2IMC_SLOW it draws new ones."""
import os

import pytest
from hypothesis import settings

settings.register_profile("same", derandomize=True, database=None)
if "STPT2IMC_SLOW" not in os.environ: settings.load_profile("same")


def pytest_configure(config):
    config.addinivalue_line("markers", "slow: takes about a minute or several processes; runs with STPT2IMC_SLOW=1")


def pytest_collection_modifyitems(items):
    if "STPT2IMC_SLOW" in os.environ: return
    for item in items:
        if item.get_closest_marker("slow"): item.add_marker(pytest.mark.skip(reason="slow: set STPT2IMC_SLOW=1"))
