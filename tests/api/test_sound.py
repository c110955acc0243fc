"""Students that others are compared with must be sound."""

from types import SimpleNamespace

import pytest

from gped_nas.api.students import Trainer
from gped_nas.errors import DivergenceError
from gped_nas.models.base import Genotype


@pytest.mark.parametrize(
    "failure", ["out of memory: 3 TB", "training diverged: its numbers are not finite"]
)
def test_a_reference_that_failed_is_refused_with_its_reason(failure):
    genotype = Genotype("mlp", depth=0)
    failed = SimpleNamespace(genotype=genotype, failure=failure)
    sound = SimpleNamespace(genotype=genotype, failure="")

    trainer = SimpleNamespace(distill=lambda genotypes: (sound,))
    assert Trainer.distill_sound(trainer, [genotype]) == (sound,)

    trainer = SimpleNamespace(distill=lambda genotypes: (sound, failed))
    with pytest.raises(DivergenceError, match=failure):
        Trainer.distill_sound(trainer, [genotype] * 2)
