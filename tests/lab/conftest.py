"""What tests of the laboratory are given."""

import pytest
from court import Court
from court import court as new_court


@pytest.fixture
def court() -> Court:
    """All invariants, before made-up events."""
    return new_court()
