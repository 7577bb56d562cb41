"""`python -m tfrobust VERB` is `tfrobust VERB`."""

from __future__ import annotations

from tfrobust.cli.main import main

if __name__ == "__main__":
    raise SystemExit(main())
