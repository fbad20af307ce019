"""Configures Hypothesis: the same examples in every run. Examples that find planted bugs are not shrunk."""

import os

from hypothesis import Phase, settings

settings.register_profile("core", derandomize=True, deadline=None, database=None)
settings.register_profile("mutants", settings.get_profile("core"), phases=[Phase.explicit, Phase.generate])
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "core"))
