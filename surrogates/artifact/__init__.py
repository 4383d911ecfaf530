"""The law artifact: one TorchScript module with a JSON manifest inside its `.pt` file. Needs nothing but torch."""

from surrogates.artifact.load import (
    Law,
    content_hash,
    load_law,
    read_manifest,
    replace_manifest,
    save_law,
    switch_fusion_off,
)

__all__ = ["Law", "content_hash", "load_law", "read_manifest", "replace_manifest", "save_law", "switch_fusion_off"]
