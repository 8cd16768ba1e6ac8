"""The public face of the simulator."""

from __future__ import annotations

import subprocess
import sys

from resilience import simulation


def test_every_name_is_there():
    assert all(hasattr(simulation, name) for name in simulation.__all__)
    assert simulation.__all__ == sorted(simulation.__all__)


def test_the_library_does_not_load_it():
    source = "import sys, resilience; sys.exit('resilience.simulation' in sys.modules)"
    subprocess.run([sys.executable, "-c", source], check=True)
