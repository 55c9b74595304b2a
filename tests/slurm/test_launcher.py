"""The launcher that makes a SLURM job of each run of a multirun."""

from __future__ import annotations

import pytest
from hydra import compose, initialize_config_dir

from torchcell.training.entry import conf_dir

plugin = pytest.importorskip("hydra_plugins.hydra_submitit_launcher.config", reason="pip install 'torchcell[cluster]'")


def test_each_setting_of_the_launcher_is_one_that_the_plugin_reads():
    with initialize_config_dir(str(conf_dir()), version_base="1.3"):
        launcher = compose("config", ["hydra/launcher=submitit_slurm"], return_hydra_config=True).hydra.launcher
    fields = plugin.SlurmQueueConf.__dataclass_fields__
    assert set(launcher) <= set(fields)
    assert launcher._target_ == fields["_target_"].default
    assert launcher.signal_delay_s < 60 * launcher.timeout_min
