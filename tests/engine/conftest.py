from __future__ import annotations

import pytest


@pytest.fixture(autouse=True)
def _plainly_written_configs(monkeypatch: pytest.MonkeyPatch) -> None:
    """Laying out a config's text five times a run is most of a run's second."""
    monkeypatch.setattr("yapf.yapflib.yapf_api.FormatCode", lambda text, style_config: (text, True))
