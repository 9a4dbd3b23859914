#!/usr/bin/env python3
"""Reads a running Larum's /metrics in both text formats with strict parsers that are not ours, and compares them.

Usage: expositions.py URL   (prometheus_client on PYTHONPATH; tests/services/fetch python puts it there)
"""
import gzip
import sys
import urllib.request

from prometheus_client.openmetrics.parser import text_string_to_metric_families as open_metrics
from prometheus_client.parser import text_string_to_metric_families as text_format

OPEN = "application/openmetrics-text; version=1.0.0; charset=utf-8"
TEXT = "text/plain; version=0.0.4; charset=utf-8"
# What both formats state of a moment that moves on between the two requests.
MOVING = ("larum_pipeline_", "larum_build_info", "larum_consumer_")


def page(url, accept, packed):
    headers = {"Accept": accept, "Accept-Encoding": "gzip" if packed else "identity"}
    with urllib.request.urlopen(urllib.request.Request(url, headers=headers)) as answer:
        body = answer.read()
        assert answer.headers["Content-Encoding"] == ("gzip" if packed else None), answer.headers
        return answer.headers["Content-Type"], (gzip.decompress(body) if packed else body).decode()


def samples(families):
    found = {}
    for family in families:
        assert family.documentation, f"{family.name} has no HELP"
        assert family.type != "unknown" or family.name.endswith("_quantile_seconds"), f"{family.name} has no TYPE"
        for sample in family.samples:
            labels = {name: float(value) if name == "le" else value for name, value in sample.labels.items()}
            key = (sample.name, tuple(sorted(labels.items())))
            assert key not in found, f"{key} is there twice"
            found[key] = sample.value
    return found


def main(url):
    seen = []
    for accept, parse in [(OPEN, open_metrics), (TEXT, text_format)]:
        pages = [page(url, accept, packed) for packed in (False, True)]
        for kind, body in pages:
            assert kind == accept, kind
            assert body.endswith("\n"), "the last line does not end"
            parsed = samples(parse(body))
        seen.append({key: value for key, value in parsed.items() if not key[0].startswith(MOVING)})
    opened, text = seen
    assert opened.keys() == text.keys(), sorted(opened.keys() ^ text.keys())[:5]
    # Windows slide between the two requests; what was counted stays.
    counted = [key for key in text if key[0].endswith(("_total", "_bucket", "_count", "_sum"))]
    assert all(opened[key] == text[key] for key in counted), [key for key in counted if opened[key] != text[key]][:5]
    assert len(counted) > 100, len(counted)
    print(f"{len(text)} samples in both formats, {len(counted)} of them counts that are equal")


main(sys.argv[1])
