"""What `jobs.serve` refuses; that it serves is tested as a process, in tests/serving."""

from __future__ import annotations

import pytest

from tfrobust import jobs
from tfrobust.errors import UsageError


@pytest.mark.parametrize("wrong", [{"port": 99999}, {"queue": 0}, {"max_batch": 0}])
def test_wrong_limits_are_refused(tmp_path, wrong):
    with pytest.raises(UsageError):
        jobs.serve(tmp_path, **wrong)
