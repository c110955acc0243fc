"""What a student may cost, as people write it."""

import pytest

from gped_nas.errors import ConfigError
from gped_nas.search.bounds import as_bounds, parse_bounds

READ = {
    "100kB": {"storage_bytes": 100_000},
    "64 KiB": {"storage_bytes": 65_536},
    "1.5MiB": {"storage_bytes": 1_572_864},
    "1 GiB": {"storage_bytes": 1_073_741_824},
    "1TiB": {"storage_bytes": 1_099_511_627_776},
    "512 bytes": {"storage_bytes": 512},
    "2MFLOPs": {"flops": 2_000_000},
    "2 GFLOPs": {"flops": 2_000_000_000},
    "7 flop": {"flops": 7},
    "3e6 flops": {"flops": 3_000_000},
    "1 M MACs": {"macs": 1_000_000},
    "1MMACs": {"macs": 1_000_000},
    "1 TMACs": {"macs": 1_000_000_000_000},
    "7 mac": {"macs": 7},
    "5 MACs": {"macs": 5},
    "5k params": {"params": 5_000},
    "7 parameters": {"params": 7},
    "params=5k": {"params": 5_000},
    "5ms": {"latency_ms": 5},
    "0.5 ms": {"latency_ms": 0.5},
    "latency_p95_ms<=2": {"latency_p95_ms": 2},
    "storage_bytes=100kB": {"storage_bytes": 100_000},
    "storage_bytes = 2Ki": {"storage_bytes": 2_048},
    "accuracy=.9": {"accuracy": 0.9},
    "accuracy>=0.9": {"accuracy": 0.9},
    "nll@permuted<=1": {"nll@permuted": 1.0},
    "nll_above_teacher=-0.01": {"nll_above_teacher": -0.01},
    "params=1_000_000": {"params": 1_000_000},
    "params=1_000_": {"params": 1_000},
}


@pytest.mark.parametrize("text", READ)
def test_a_bound_is_read(text: str) -> None:
    assert parse_bounds(text, "--within") == READ[text]


def test_bounds_may_stand_in_one_text_or_several() -> None:
    expected = {"storage_bytes": 1e5, "flops": 2e6, "accuracy": 0.5}
    assert parse_bounds("100kB, 2MFLOPs,accuracy=.5", "--within") == expected
    assert parse_bounds(["100kB,2MFLOPs", "accuracy=.5"], "--within") == expected
    assert as_bounds(expected, "within") == expected
    assert as_bounds("100kB", "within") == {"storage_bytes": 1e5}


REFUSED = {
    "": "found ''",
    "100kB,": "found ''",
    "5000": "without a unit or a name",
    "100 kX": "expected for example 100kB",
    "kB": "expected for example 100kB",
    "=100kB": "found '=100kB'",
    "params=many": "found 'params=many'",
    "params=nan": "found 'params=nan'",
    "params=1e999": "a finite number",
    "params=100kB": "B is a unit of storage_bytes",
    "2KiFLOPs": "'Ki' is a prefix of bytes only",
    "2Mms": "'M' is a prefix of no ms",
    "2Kims": "'Ki' is a prefix of bytes only",
    "100kB,200kB": "two bounds of 'storage_bytes'",
}


@pytest.mark.parametrize("text", REFUSED)
def test_what_is_no_bound_is_refused(text: str) -> None:
    with pytest.raises(ConfigError) as error:
        parse_bounds(text, "--within")
    assert str(error.value).startswith("within: ") and REFUSED[text] in str(error.value)
